# PostgreSQL with "shortline db" on one machine, its data on a volume that outlives it.

locals {
  primary = var.region == var.first_region
  settings = merge(
    {
      ssl             = "on"
      ssl_cert_file   = "/etc/shortline/tls/db.pem"
      ssl_key_file    = "/etc/shortline/tls/db.key"
      archive_mode    = "on" # only a primary archives
      archive_command = "pgbackrest --stanza=shortline archive-push %p"
      archive_timeout = "60s"
    },
    var.database.settings,
  )
  db_env = merge(
    {
      SHORTLINE_REGION               = var.region
      SHORTLINE_DEPLOYMENT           = var.name
      SHORTLINE_POSTGRES_LISTEN      = "@ADDRESS@:${local.ports.postgres}"
      SHORTLINE_AGENT_LISTEN         = "@ADDRESS@:${local.ports.agent}"
      SHORTLINE_AGENT_METRICS_LISTEN = "127.0.0.1:8084"
      SHORTLINE_DB_SSLMODE           = "require"
      SHORTLINE_DB_INIT_SQL          = "/etc/shortline/roles.sql"
      SHORTLINE_DB_SETTING           = join(",", [for k in sort(keys(local.settings)) : "${k}=${local.settings[k]}"])
      SHORTLINE_CLUSTER_TLS_CA       = "/etc/shortline/tls/ca.pem"
      SHORTLINE_CLUSTER_TLS_CERT     = "/etc/shortline/tls/db.pem"
      SHORTLINE_CLUSTER_TLS_KEY      = "/etc/shortline/tls/db.key"
      SHORTLINE_LOG_FORMAT           = "json"
    },
    local.primary ? { SHORTLINE_DB_INIT = "true" } : { SHORTLINE_DB_INIT_FROM = var.first_region },
    local.several ? {} : { SHORTLINE_DB_ALONE = "true" },
    length(local.databases) < 2 ? {} : {
      SHORTLINE_DB_PEER = join(",", [for name in sort(keys(local.databases)) : "${name}=${local.databases[name]}:${local.ports.postgres}" if name != var.region])
    },
  )
  db_data = templatefile("${path.module}/templates/db.yaml.tftpl", {
    install     = local.install
    env         = local.db_env
    aws_region  = local.aws
    volume      = replace(aws_ebs_volume.db.id, "-", "")
    bucket      = aws_s3_bucket.log.bucket
    backup_days = var.database.backup_days
  })
}

resource "aws_ebs_volume" "db" {
  region            = local.aws
  availability_zone = aws_subnet.private[1].availability_zone
  type              = "gp3"
  size              = var.database.volume_gib
  iops              = var.database.iops
  throughput        = var.database.throughput
  encrypted         = true
  kms_key_id        = var.kms_key_arn
  final_snapshot    = true # whoever deletes it, keeps it
  tags              = merge(local.tags, { Name = "${local.prefix}-db" })
}

resource "aws_instance" "db" {
  region                               = local.aws
  ami                                  = data.aws_ssm_parameter.image.value
  instance_type                        = var.database.instance_type
  subnet_id                            = aws_subnet.private[1].id
  private_ip                           = local.databases[var.region]
  vpc_security_group_ids               = [aws_security_group.db.id]
  iam_instance_profile                 = var.instance_profiles.db
  disable_api_termination              = var.deletion_protection
  instance_initiated_shutdown_behavior = "stop"
  ebs_optimized                        = true
  monitoring                           = true
  user_data_base64                     = base64gzip(local.db_data)
  metadata_options {
    http_tokens                 = "required"
    http_put_response_hop_limit = 1
  }
  maintenance_options {
    auto_recovery = "default"
  }
  root_block_device {
    volume_type = "gp3"
    volume_size = 20
    encrypted   = true
    kms_key_id  = var.kms_key_arn
  }
  tags = merge(local.tags, { Name = "${local.prefix}-db" })

  lifecycle {
    # A new image or package is for a planned hour, after a switchover: README, "Upgrade".
    ignore_changes = [ami, user_data_base64]
  }
  depends_on = [aws_route.nat, aws_route_table_association.private]
}

resource "aws_volume_attachment" "db" {
  region                         = local.aws
  device_name                    = "/dev/sdf"
  volume_id                      = aws_ebs_volume.db.id
  instance_id                    = aws_instance.db.id
  stop_instance_before_detaching = true
}
