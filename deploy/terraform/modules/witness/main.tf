# A witness: a voter without data in a third place, for two regions. It has a public address to fetch packages with, and can be
# reached from the other regions only.

locals {
  here   = var.topology[var.region]
  aws    = local.here.aws_region
  tags   = merge(var.tags, { Deployment = var.name, Region = var.region })
  prefix = "${var.name}-${var.region}"

  voters     = { for name, r in var.topology : name => cidrhost(cidrsubnet(r.cidr, 4, 0), 10) }
  databases  = { for name, r in var.topology : name => cidrhost(cidrsubnet(r.cidr, 4, 1), 10) if !r.witness }
  peer_cidrs = { for name, r in var.topology : name => r.cidr if name != var.region }
  ports      = { control = 8090, agent = 8083, gossip = 7946 }

  env = {
    SHORTLINE_WITNESS          = "true"
    SHORTLINE_REGION           = var.region
    SHORTLINE_DEPLOYMENT       = var.name
    SHORTLINE_GOSSIP_LISTEN    = "@ADDRESS@:${local.ports.gossip}"
    SHORTLINE_JOIN             = join(",", [for name in sort(keys(local.voters)) : "${local.voters[name]}:${local.ports.gossip}"])
    SHORTLINE_CONTROL_LISTEN   = "@ADDRESS@:${local.ports.control}"
    SHORTLINE_CONTROL_VOTERS   = join(",", [for name in sort(keys(local.voters)) : "${name}=${local.voters[name]}:${local.ports.control}"])
    SHORTLINE_DB_AGENTS        = join(",", [for name in sort(keys(local.databases)) : "${name}=${local.databases[name]}:${local.ports.agent}"])
    SHORTLINE_CLUSTER_TLS_CA   = "/etc/shortline/tls/ca.pem"
    SHORTLINE_CLUSTER_TLS_CERT = "/etc/shortline/tls/node.pem"
    SHORTLINE_CLUSTER_TLS_KEY  = "/etc/shortline/tls/node.key"
    SHORTLINE_LOG_FORMAT       = "json"
  }
  install = templatefile("${path.module}/../region/templates/install.sh.tftpl", {
    aws_region     = local.aws
    package_url    = var.package_url
    package_sha256 = var.package_sha256
    secret_arn     = var.secret_arn
  })
  user_data = templatefile("${path.module}/../region/templates/node.yaml.tftpl", { install = local.install, database = null, env = local.env })
}

data "aws_availability_zones" "here" {
  region = local.aws
  state  = "available"
}

data "aws_ssm_parameter" "image" {
  region = local.aws
  name   = "/aws/service/debian/release/12/latest/amd64"
}

resource "aws_vpc" "this" {
  region               = local.aws
  cidr_block           = local.here.cidr
  enable_dns_support   = true
  enable_dns_hostnames = true
  tags                 = merge(local.tags, { Name = local.prefix })
}

resource "aws_default_security_group" "this" {
  region = local.aws
  vpc_id = aws_vpc.this.id
  tags   = merge(local.tags, { Name = "${local.prefix}-unused" })
}

resource "aws_subnet" "this" {
  region            = local.aws
  vpc_id            = aws_vpc.this.id
  availability_zone = data.aws_availability_zones.here.names[0]
  cidr_block        = cidrsubnet(local.here.cidr, 4, 0)
  tags              = merge(local.tags, { Name = local.prefix })
}

resource "aws_internet_gateway" "this" {
  region = local.aws
  vpc_id = aws_vpc.this.id
  tags   = merge(local.tags, { Name = local.prefix })
}

resource "aws_route_table" "this" {
  region = local.aws
  vpc_id = aws_vpc.this.id
  tags   = merge(local.tags, { Name = local.prefix })
}

resource "aws_route" "internet" {
  region                 = local.aws
  route_table_id         = aws_route_table.this.id
  destination_cidr_block = "0.0.0.0/0"
  gateway_id             = aws_internet_gateway.this.id
}

resource "aws_route_table_association" "this" {
  region         = local.aws
  subnet_id      = aws_subnet.this.id
  route_table_id = aws_route_table.this.id
}

resource "aws_security_group" "this" {
  region      = local.aws
  name        = local.prefix
  description = "Shortline witness"
  vpc_id      = aws_vpc.this.id
  tags        = merge(local.tags, { Name = local.prefix })
}

resource "aws_vpc_security_group_ingress_rule" "this" {
  for_each = merge(
    { for name, cidr in local.peer_cidrs : "gossip udp from ${name}" => { port = local.ports.gossip, protocol = "udp", cidr = cidr } },
    { for name, cidr in local.peer_cidrs : "gossip tcp from ${name}" => { port = local.ports.gossip, protocol = "tcp", cidr = cidr } },
    { for name, cidr in local.peer_cidrs : "control from ${name}" => { port = local.ports.control, protocol = "tcp", cidr = cidr } },
  )

  region            = local.aws
  security_group_id = aws_security_group.this.id
  description       = each.key
  ip_protocol       = each.value.protocol
  from_port         = each.value.port
  to_port           = each.value.port
  cidr_ipv4         = each.value.cidr
  tags              = local.tags
}

resource "aws_vpc_security_group_egress_rule" "this" {
  region            = local.aws
  security_group_id = aws_security_group.this.id
  description       = "anywhere"
  ip_protocol       = "-1"
  cidr_ipv4         = "0.0.0.0/0"
  tags              = local.tags
}

resource "aws_instance" "this" {
  region                      = local.aws
  ami                         = data.aws_ssm_parameter.image.value
  instance_type               = var.instance_type
  subnet_id                   = aws_subnet.this.id
  private_ip                  = local.voters[var.region]
  associate_public_ip_address = true
  vpc_security_group_ids      = [aws_security_group.this.id]
  iam_instance_profile        = var.instance_profile
  disable_api_termination     = var.deletion_protection
  user_data_base64            = base64gzip(local.user_data)
  metadata_options {
    http_tokens                 = "required"
    http_put_response_hop_limit = 1
  }
  root_block_device {
    volume_type = "gp3"
    volume_size = 10
    encrypted   = true
    kms_key_id  = var.kms_key_arn
  }
  tags = merge(local.tags, { Name = local.prefix })

  lifecycle {
    ignore_changes = [ami, user_data_base64] # voters are replaced one after the other, by hand
  }
  depends_on = [aws_route.internet, aws_route_table_association.this]
}
