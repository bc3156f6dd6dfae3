# Who may reach what. Machines may be reached at nothing else: there is no SSH; a shell is had through AWS Systems Manager.

resource "aws_security_group" "node" {
  region      = local.aws
  name        = "${local.prefix}-node"
  description = "Shortline edge nodes"
  vpc_id      = aws_vpc.this.id
  tags        = merge(local.tags, { Name = "${local.prefix}-node" })
}

resource "aws_security_group" "db" {
  region      = local.aws
  name        = "${local.prefix}-db"
  description = "Shortline PostgreSQL and its agent"
  vpc_id      = aws_vpc.this.id
  tags        = merge(local.tags, { Name = "${local.prefix}-db" })
}

resource "aws_security_group" "balancer" {
  region      = local.aws
  name        = "${local.prefix}-balancer"
  description = "Shortline balancer"
  vpc_id      = aws_vpc.this.id
  tags        = merge(local.tags, { Name = "${local.prefix}-balancer" })
}

resource "aws_security_group" "redis" {
  count = var.redis == null ? 0 : 1

  region      = local.aws
  name        = "${local.prefix}-redis"
  description = "Shortline Redis"
  vpc_id      = aws_vpc.this.id
  tags        = merge(local.tags, { Name = "${local.prefix}-redis" })
}

locals {
  client_port = local.tls ? 443 : 80
  dns         = var.dns_zone == null ? {} : { udp = "udp", tcp = "tcp" }

  # Each rule: to which group, at which port, by which protocol, from which network or group.
  rules = merge(
    { for cidr in var.client_cidrs : "clients ${cidr}" => { to = "balancer", port = local.client_port, protocol = "tcp", cidr = cidr } },
    { for key, protocol in local.dns : "dns ${key}" => { to = "balancer", port = local.ports.dns, protocol = protocol, cidr = "0.0.0.0/0" } },
    # The balancer keeps the clients' addresses, so its group is who is asked for.
    { "api from the balancer" = { to = "node", port = local.ports.api, protocol = "tcp", group = "balancer" } },
    { for key, protocol in local.dns : "dns ${key} from the balancer" => { to = "node", port = local.ports.dns, protocol = protocol, group = "balancer" } },
    { "writes from nodes" = { to = "node", port = local.ports.cluster, protocol = "tcp", group = "node" } },
    { "gossip udp from nodes" = { to = "node", port = local.ports.gossip, protocol = "udp", group = "node" } },
    { "gossip tcp from nodes" = { to = "node", port = local.ports.gossip, protocol = "tcp", group = "node" } },
    { "control from nodes" = { to = "node", port = local.ports.control, protocol = "tcp", group = "node" } },
    { for name, cidr in local.data_cidrs : "writes from ${name}" => { to = "node", port = local.ports.cluster, protocol = "tcp", cidr = cidr } },
    { for name, cidr in local.peer_cidrs : "gossip udp from ${name}" => { to = "node", port = local.ports.gossip, protocol = "udp", cidr = cidr } },
    { for name, cidr in local.peer_cidrs : "gossip tcp from ${name}" => { to = "node", port = local.ports.gossip, protocol = "tcp", cidr = cidr } },
    { for name, cidr in local.peer_cidrs : "control from ${name}" => { to = "node", port = local.ports.control, protocol = "tcp", cidr = cidr } },
    { "postgres from nodes" = { to = "db", port = local.ports.postgres, protocol = "tcp", group = "node" } },
    { "agent from nodes" = { to = "db", port = local.ports.agent, protocol = "tcp", group = "node" } },
    # Nodes everywhere write to the primary, standbys follow it, and any voter may command an agent: after a failover that is this region.
    { for name, cidr in local.data_cidrs : "postgres from ${name}" => { to = "db", port = local.ports.postgres, protocol = "tcp", cidr = cidr } },
    { for name, cidr in local.peer_cidrs : "agent from ${name}" => { to = "db", port = local.ports.agent, protocol = "tcp", cidr = cidr } },
    var.redis == null ? {} : { "redis from nodes" = { to = "redis", port = local.ports.redis, protocol = "tcp", group = "node" } },
  )
  groups = merge(
    { node = aws_security_group.node.id, db = aws_security_group.db.id, balancer = aws_security_group.balancer.id },
    var.redis == null ? {} : { redis = aws_security_group.redis[0].id },
  )
}

resource "aws_vpc_security_group_ingress_rule" "this" {
  for_each = local.rules

  region                       = local.aws
  security_group_id            = local.groups[each.value.to]
  description                  = each.key
  ip_protocol                  = each.value.protocol
  from_port                    = each.value.port
  to_port                      = each.value.port
  cidr_ipv4                    = try(each.value.cidr, null)
  referenced_security_group_id = try(local.groups[each.value.group], null)
  tags                         = local.tags
}

# Machines fetch packages and speak to AWS, to each other and to other regions.
resource "aws_vpc_security_group_egress_rule" "machines" {
  for_each = { node = aws_security_group.node.id, db = aws_security_group.db.id }

  region            = local.aws
  security_group_id = each.value
  description       = "anywhere"
  ip_protocol       = "-1"
  cidr_ipv4         = "0.0.0.0/0"
  tags              = local.tags
}

resource "aws_vpc_security_group_egress_rule" "balancer" {
  for_each = merge({ api = { port = local.ports.api, protocol = "tcp" } }, { for key, protocol in local.dns : "dns ${key}" => { port = local.ports.dns, protocol = protocol } })

  region                       = local.aws
  security_group_id            = aws_security_group.balancer.id
  description                  = "${each.key} to nodes"
  ip_protocol                  = each.value.protocol
  from_port                    = each.value.port
  to_port                      = each.value.port
  referenced_security_group_id = aws_security_group.node.id
  tags                         = local.tags
}
