# One region: network, edge nodes behind a balancer, PostgreSQL run by "shortline db", Redis. Every resource says its AWS region,
# so one provider serves all regions.

locals {
  here    = var.topology[var.region]
  aws     = local.here.aws_region
  tags    = merge(var.tags, { Deployment = var.name, Region = var.region })
  prefix  = "${var.name}-${var.region}"
  several = length(var.topology) > 1
  tls     = var.certificate_arn != null

  # Addresses that others have to know beforehand are fixed: the voter's in the first zone, the database's in the second.
  private_cidrs = [for i in range(3) : cidrsubnet(local.here.cidr, 4, i)]
  public_cidrs  = [for i in range(3) : cidrsubnet(local.here.cidr, 4, 8 + i)]
  voters        = { for name, r in var.topology : name => cidrhost(cidrsubnet(r.cidr, 4, 0), 10) }
  databases     = { for name, r in var.topology : name => cidrhost(cidrsubnet(r.cidr, 4, 1), 10) if !r.witness }
  peer_cidrs    = { for name, r in var.topology : name => r.cidr if name != var.region }
  data_cidrs    = { for name, r in var.topology : name => r.cidr if name != var.region && !r.witness }

  ports = { api = 8080, cluster = 8082, agent = 8083, control = 8090, gossip = 7946, postgres = 5432, redis = 6379, dns = 53 }
}

data "aws_availability_zones" "here" {
  region = local.aws
  state  = "available"
  filter {
    name   = "opt-in-status"
    values = ["opt-in-not-required"]
  }
}

# Debian 12, as its own makers publish it.
data "aws_ssm_parameter" "image" {
  region = local.aws
  name   = "/aws/service/debian/release/12/latest/amd64"
}
