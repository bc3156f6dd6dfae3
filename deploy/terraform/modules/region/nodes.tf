# Edge nodes: the voter, with a fixed address, and a group of others. All are behind the balancer.

locals {
  join = [for name in sort(keys(local.voters)) : "${local.voters[name]}:${local.ports.gossip}"]

  # Settings of every node; what is secret is fetched by the machine. @ADDRESS@ is its own address.
  node_env = merge(
    {
      SHORTLINE_REGION           = var.region
      SHORTLINE_DEPLOYMENT       = var.name
      SHORTLINE_LISTEN           = ":${local.ports.api}"
      SHORTLINE_CLUSTER_LISTEN   = "@ADDRESS@:${local.ports.cluster}"
      SHORTLINE_GOSSIP_LISTEN    = "@ADDRESS@:${local.ports.gossip}"
      SHORTLINE_JOIN             = join(",", local.join)
      SHORTLINE_ADVERTISE_URL    = var.public_url
      SHORTLINE_CLUSTER_TLS_CA   = "/etc/shortline/tls/ca.pem"
      SHORTLINE_CLUSTER_TLS_CERT = "/etc/shortline/tls/node.pem"
      SHORTLINE_CLUSTER_TLS_KEY  = "/etc/shortline/tls/node.key"
      SHORTLINE_LOG_FORMAT       = "json"
    },
    !local.several ? {} : {
      SHORTLINE_CONTROL_VOTERS = join(",", [for name in sort(keys(local.voters)) : "${name}=${local.voters[name]}:${local.ports.control}"])
      SHORTLINE_DB_AGENTS      = join(",", [for name in sort(keys(local.databases)) : "${name}=${local.databases[name]}:${local.ports.agent}"])
    },
    var.redis == null ? {} : {
      SHORTLINE_REDIS     = "${aws_elasticache_replication_group.this[0].configuration_endpoint_address}:${local.ports.redis}"
      SHORTLINE_REDIS_TLS = "true"
    },
    var.dns_zone == null ? {} : {
      SHORTLINE_DNS_LISTEN  = ":${local.ports.dns}"
      SHORTLINE_DNS_ZONE    = var.dns_zone
      SHORTLINE_DNS_NS      = join(",", [for name, r in var.topology : "ns-${name}-${var.dns_zone}" if !r.witness])
      SHORTLINE_PUBLIC_ADDR = join(",", aws_eip.balancer[*].public_ip)
    },
  )
  voter_env = merge(local.node_env, !local.several ? {} : { SHORTLINE_CONTROL_LISTEN = "@ADDRESS@:${local.ports.control}" })

  install = templatefile("${path.module}/templates/install.sh.tftpl", {
    aws_region     = local.aws
    package_url    = var.package_url
    package_sha256 = var.package_sha256
    secret_arn     = var.secret_arn
  })
  node_boot  = { install = local.install, database = "${local.databases[var.region]}:${local.ports.postgres}" }
  node_data  = templatefile("${path.module}/templates/node.yaml.tftpl", merge(local.node_boot, { env = local.node_env }))
  voter_data = templatefile("${path.module}/templates/node.yaml.tftpl", merge(local.node_boot, { env = local.voter_env }))
}

resource "aws_instance" "voter" {
  region                  = local.aws
  ami                     = data.aws_ssm_parameter.image.value
  instance_type           = var.nodes.instance_type
  subnet_id               = aws_subnet.private[0].id
  private_ip              = local.voters[var.region]
  vpc_security_group_ids  = [aws_security_group.node.id]
  iam_instance_profile    = var.instance_profiles.node
  disable_api_termination = var.deletion_protection
  ebs_optimized           = true
  monitoring              = true
  user_data_base64        = base64gzip(local.voter_data)
  metadata_options {
    http_tokens                 = "required"
    http_put_response_hop_limit = 1
  }
  root_block_device {
    volume_type = "gp3"
    volume_size = var.nodes.volume_gib
    encrypted   = true
    kms_key_id  = var.kms_key_arn
  }
  tags        = merge(local.tags, { Name = "${local.prefix}-voter" })
  volume_tags = merge(local.tags, { Name = "${local.prefix}-voter" })

  lifecycle {
    # One voter after the other is replaced by hand, never several at once: README, "Upgrade".
    ignore_changes = [ami, user_data_base64]
  }
  depends_on = [aws_route.nat, aws_route_table_association.private]
}

resource "aws_lb_target_group_attachment" "voter" {
  region           = local.aws
  target_group_arn = aws_lb_target_group.api.arn
  target_id        = aws_instance.voter.id
}

resource "aws_lb_target_group_attachment" "voter_dns" {
  count = var.dns_zone == null ? 0 : 1

  region           = local.aws
  target_group_arn = aws_lb_target_group.dns[0].arn
  target_id        = aws_instance.voter.id
}

resource "aws_launch_template" "node" {
  region        = local.aws
  name          = "${local.prefix}-node"
  image_id      = data.aws_ssm_parameter.image.value
  instance_type = var.nodes.instance_type
  ebs_optimized = true
  user_data     = base64gzip(local.node_data)
  iam_instance_profile {
    name = var.instance_profiles.node
  }
  vpc_security_group_ids = [aws_security_group.node.id]
  metadata_options {
    http_endpoint               = "enabled"
    http_tokens                 = "required"
    http_put_response_hop_limit = 1
  }
  monitoring {
    enabled = true
  }
  block_device_mappings {
    device_name = "/dev/xvda"
    ebs {
      volume_type           = "gp3"
      volume_size           = var.nodes.volume_gib
      encrypted             = true
      kms_key_id            = var.kms_key_arn
      delete_on_termination = true
    }
  }
  tag_specifications {
    resource_type = "instance"
    tags          = merge(local.tags, { Name = "${local.prefix}-node" })
  }
  tag_specifications {
    resource_type = "volume"
    tags          = merge(local.tags, { Name = "${local.prefix}-node" })
  }
  update_default_version = true
  tags                   = local.tags
}

resource "aws_autoscaling_group" "node" {
  region                    = local.aws
  name                      = "${local.prefix}-node"
  min_size                  = var.nodes.count - 1
  max_size                  = var.nodes.count + 1 # one more while they are renewed
  desired_capacity          = var.nodes.count - 1
  vpc_zone_identifier       = aws_subnet.private[*].id
  target_group_arns         = concat([aws_lb_target_group.api.arn], aws_lb_target_group.dns[*].arn)
  health_check_type         = "ELB"
  health_check_grace_period = 600
  default_instance_warmup   = 120
  wait_for_capacity_timeout = "20m"
  launch_template {
    id      = aws_launch_template.node.id
    version = aws_launch_template.node.latest_version
  }
  instance_refresh {
    strategy = "Rolling"
    preferences {
      min_healthy_percentage = 100
      max_healthy_percentage = 150
    }
  }
  dynamic "tag" {
    for_each = merge(local.tags, { Name = "${local.prefix}-node" })
    content {
      key                 = tag.key
      value               = tag.value
      propagate_at_launch = false # the launch template does it
    }
  }
  depends_on = [aws_route.nat, aws_route_table_association.private]
}
