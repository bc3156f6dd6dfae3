mock_provider "aws" {
  mock_data "aws_availability_zones" {
    defaults = { names = ["us-west-2a"] }
  }
}

variables {
  name   = "shortline"
  region = "witness"
  topology = {
    us-east = { aws_region = "us-east-1", cidr = "10.1.0.0/16" }
    eu-west = { aws_region = "eu-west-1", cidr = "10.2.0.0/16" }
    witness = { aws_region = "us-west-2", cidr = "10.3.0.0/20", witness = true }
  }
  instance_profile = "shortline-witness-node"
  kms_key_arn      = "arn:aws:kms:us-west-2:123456789012:key/1"
  secret_arn       = "arn:aws:secretsmanager:us-west-2:123456789012:secret:shortline/witness"
  package_url      = "s3://packages/shortline_1.0.0_amd64.deb"
  package_sha256   = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
}

run "witness" {
  assert {
    condition     = aws_instance.this.private_ip == "10.3.0.10" && aws_instance.this.region == "us-west-2" && aws_instance.this.disable_api_termination
    error_message = "It is where the others look for it."
  }
  assert {
    condition     = local.env.SHORTLINE_WITNESS == "true" && local.env.SHORTLINE_CONTROL_VOTERS == "eu-west=10.2.0.10:8090,us-east=10.1.0.10:8090,witness=10.3.0.10:8090"
    error_message = "It votes with the others."
  }
  assert {
    condition     = !strcontains(local.user_data, "SHORTLINE_POSTGRES=") && strcontains(local.user_data, "s3://packages/shortline_1.0.0_amd64.deb")
    error_message = "It knows no database."
  }
  assert {
    condition     = toset([for r in values(aws_vpc_security_group_ingress_rule.this) : r.cidr_ipv4]) == toset(["10.1.0.0/16", "10.2.0.0/16"])
    error_message = "Only the other regions reach it."
  }
}

run "refuses_what_is_no_witness" {
  command = plan
  variables {
    region = "us-east"
  }
  expect_failures = [var.region]
}
