mock_provider "aws" {
  mock_data "aws_caller_identity" {
    defaults = { account_id = "123456789012" }
  }
  mock_data "aws_partition" {
    defaults = { partition = "aws" }
  }
}

variables {
  name    = "shortline"
  regions = { us-east = { aws_region = "us-east-1", bucket = "log-us" }, witness = { aws_region = "us-west-2" } }
  zone_id = "Z123"
  domain  = "stores.example.org"
  endpoints = {
    us-east = { aws_region = "us-east-1", dns_name = "lb.us-east-1.elb.amazonaws.com", zone_id = "ZLB", tls = true, addresses = ["192.0.2.1", "192.0.2.2", "192.0.2.3"] }
  }
  alarm_topic_arn = "arn:aws:sns:us-east-1:123456789012:alarms"
}

run "least_privilege" {
  assert {
    condition     = toset(keys(aws_iam_role.machine)) == toset(["us-east-node", "us-east-db", "witness-node"])
    error_message = "A witness has no database, and so no role for one: ${join(", ", keys(aws_iam_role.machine))}"
  }
  assert {
    condition = alltrue(flatten([for p in values(aws_iam_role_policy.machine) : [for s in jsondecode(p.policy).Statement :
    s.Effect == "Allow" && !contains(flatten([s.Resource]), "*") && alltrue([for a in flatten([s.Action]) : !endswith(a, "*")])]]))
    error_message = "No machine may do anything to everything."
  }
  assert {
    condition     = !strcontains(aws_iam_role_policy.machine["us-east-node"].policy, "s3:")
    error_message = "Nodes have nothing to do with the log."
  }
  assert {
    condition     = strcontains(aws_iam_role_policy.machine["us-east-db"].policy, "arn:aws:s3:::log-us/*")
    error_message = "A database writes its region's log."
  }
  assert {
    condition     = jsondecode(aws_iam_role_policy.machine["witness-node"].policy).Statement[0].Resource == [aws_secretsmanager_secret.region["witness"].arn]
    error_message = "A machine reads the secret of its own region."
  }
}

run "encryption_and_places" {
  assert {
    condition     = alltrue([for k in values(aws_kms_key.secrets) : k.enable_key_rotation && k.deletion_window_in_days == 30])
    error_message = "Keys rotate, and are not gone at once."
  }
  assert {
    condition     = aws_secretsmanager_secret.region["witness"].region == "us-west-2" && aws_kms_key.secrets["us-east"].region == "us-east-1"
    error_message = "Everything stands in its region."
  }
  assert {
    condition     = aws_secretsmanager_secret.region["us-east"].tags.Deployment == "shortline"
    error_message = "There are tags."
  }
}

run "latency" {
  assert {
    condition     = aws_route53_record.latency["us-east"].latency_routing_policy[0].region == "us-east-1" && length(aws_route53_record.delegation) == 0
    error_message = "There are records by latency and no delegation."
  }
  assert {
    condition     = aws_route53_health_check.region["us-east"].type == "HTTPS" && aws_route53_health_check.region["us-east"].resource_path == "/healthz"
    error_message = "Health is asked for by HTTPS."
  }
  assert {
    condition     = aws_route53_record.region["us-east"].name == "us-east-stores.example.org"
    error_message = "The region has a name of its own."
  }
}

run "delegate" {
  variables {
    dns = "delegate"
  }
  assert {
    condition     = length(aws_route53_record.latency) == 0 && aws_route53_record.name_server["us-east"].records == toset(["192.0.2.1", "192.0.2.2", "192.0.2.3"])
    error_message = "The name server has the balancer's addresses."
  }
  assert {
    condition     = aws_route53_record.delegation[0].type == "NS" && aws_route53_record.delegation[0].records == toset(["ns-us-east-stores.example.org"])
    error_message = "The domain is delegated to them."
  }
}

run "no_dns" {
  variables {
    dns     = "none"
    zone_id = null
    domain  = null
  }
  assert {
    condition     = length(aws_route53_health_check.region) == 0 && length(aws_route53_record.region) == 0
    error_message = "There is nothing in Route 53."
  }
}

run "refuses" {
  command = plan
  variables {
    name                  = "Shortline"
    regions               = { us = { aws_region = "Ohio", bucket = "b" } }
    dns                   = "bind"
    secrets_recovery_days = 0
  }
  expect_failures = [var.name, var.regions, var.dns, var.secrets_recovery_days]
}

run "refuses_names_that_are_none" {
  command = plan
  variables {
    domain  = "localhost"
    zone_id = null
  }
  expect_failures = [var.domain, var.zone_id]
}
