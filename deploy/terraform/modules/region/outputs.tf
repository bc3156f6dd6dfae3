output "endpoint" {
  description = "Where clients come in; for the global module."
  value = {
    aws_region = local.aws
    dns_name   = aws_lb.this.dns_name
    zone_id    = aws_lb.this.zone_id
    tls        = local.tls
    addresses  = aws_eip.balancer[*].public_ip
  }
}

output "network" {
  description = "For peering."
  value = {
    region          = var.region
    aws_region      = local.aws
    vpc_id          = aws_vpc.this.id
    cidr            = local.here.cidr
    route_tables    = 3
    route_table_ids = aws_route_table.private[*].id
  }
}

output "voter" {
  description = "The voter's machine: aws ssm start-session --target ID."
  value       = { id = aws_instance.voter.id, address = local.voters[var.region] }
}

output "database" {
  description = "The database's machine and volume."
  value       = { id = aws_instance.db.id, address = local.databases[var.region], volume = aws_ebs_volume.db.id }
}

output "alarm_topic_arn" {
  description = "Topic that gets the alarms of this region."
  value       = aws_sns_topic.alarms.arn
}

output "log_bucket" {
  description = "Bucket of the database's log and backups."
  value       = aws_s3_bucket.log.bucket
}
