resource "aws_elasticache_subnet_group" "this" {
  count = var.redis == null ? 0 : 1

  region     = local.aws
  name       = local.prefix
  subnet_ids = aws_subnet.private[*].id
  tags       = local.tags
}

resource "aws_elasticache_parameter_group" "this" {
  count = var.redis == null ? 0 : 1

  region = local.aws
  name   = local.prefix
  family = "redis7"
  parameter {
    name  = "cluster-enabled"
    value = "yes"
  }
  parameter {
    name  = "maxmemory-policy"
    value = "allkeys-lru" # it is a cache: what is in it can be read again
  }
  tags = local.tags
}

resource "aws_elasticache_replication_group" "this" {
  count = var.redis == null ? 0 : 1

  region                     = local.aws
  replication_group_id       = substr(local.prefix, 0, 40)
  description                = "Shortline ${var.name}, details of stores in ${var.region}"
  engine                     = "redis"
  engine_version             = "7.1"
  cluster_mode               = "enabled"
  node_type                  = var.redis.node_type
  num_node_groups            = var.redis.masters
  replicas_per_node_group    = var.redis.replicas
  automatic_failover_enabled = true
  multi_az_enabled           = true
  parameter_group_name       = aws_elasticache_parameter_group.this[0].name
  subnet_group_name          = aws_elasticache_subnet_group.this[0].name
  security_group_ids         = [aws_security_group.redis[0].id]
  port                       = local.ports.redis
  at_rest_encryption_enabled = true
  kms_key_id                 = var.kms_key_arn
  transit_encryption_enabled = true
  transit_encryption_mode    = "required"
  auto_minor_version_upgrade = true
  apply_immediately          = false
  tags                       = local.tags
}
