output "node_profiles" {
  description = "Instance profile of nodes and witnesses, by region."
  value       = { for region in keys(var.regions) : region => aws_iam_instance_profile.machine["${region}-node"].name }
}

output "db_profiles" {
  description = "Instance profile of databases, by region."
  value       = { for region, r in var.regions : region => aws_iam_instance_profile.machine["${region}-db"].name if r.bucket != null }
}

output "kms_key_arns" {
  description = "Key of each region, for secrets, volumes, logs and topics."
  value       = { for region in keys(var.regions) : region => aws_kms_key.secrets[region].arn }
}

output "secret_arns" {
  description = "Secret of each region; its value is put there by an operator."
  value       = { for region in keys(var.regions) : region => aws_secretsmanager_secret.region[region].arn }
}
