output "url" {
  description = "Where clients go."
  value       = "https://${var.domain}"
}

output "voters" {
  description = "Voters: aws ssm start-session --region … --target ID."
  value       = { us-east = module.us_east.voter, eu-west = module.eu_west.voter, ap-southeast = module.ap_southeast.voter }
}

output "databases" {
  description = "Database machines and their volumes."
  value       = { us-east = module.us_east.database, eu-west = module.eu_west.database, ap-southeast = module.ap_southeast.database }
}

output "secrets" {
  description = "Where the secrets are to be put (README, \"Secrets\")."
  value       = module.global.secret_arns
}
