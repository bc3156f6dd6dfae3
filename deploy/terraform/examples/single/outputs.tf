output "url" {
  description = "Where clients go."
  value       = "https://${var.domain}"
}

output "voters" {
  description = "Voters: aws ssm start-session --region … --target ID."
  value       = { us-east = module.us_east.voter }
}

output "databases" {
  description = "Database machines and their volumes."
  value       = { us-east = module.us_east.database }
}

output "secrets" {
  description = "Where the secrets are to be put (README, \"Secrets\")."
  value       = module.global.secret_arns
}
