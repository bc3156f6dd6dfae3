output "network" {
  description = "For peering."
  value = {
    region          = var.region
    aws_region      = local.aws
    vpc_id          = aws_vpc.this.id
    cidr            = local.here.cidr
    route_tables    = 1
    route_table_ids = [aws_route_table.this.id]
  }
}

output "voter" {
  description = "The witness: aws ssm start-session --target ID."
  value       = { id = aws_instance.this.id, address = local.voters[var.region] }
}
