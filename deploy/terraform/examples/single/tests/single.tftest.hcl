mock_provider "aws" {
  mock_data "aws_availability_zones" {
    defaults = { names = ["a", "b", "c"] }
  }
  mock_data "aws_caller_identity" {
    defaults = { account_id = "123456789012" }
  }
  mock_data "aws_partition" {
    defaults = { partition = "aws" }
  }
}

variables {
  account_id       = "123456789012"
  zone_id          = "Z123"
  domain           = "stores.example.org"
  certificate_arns = { us-east = "arn:us", eu-west = "arn:eu", ap-southeast = "arn:ap" }
  package_url      = "https://example.org/shortline_1.0.0_amd64.deb"
  package_sha256   = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
}

run "apply" {
  assert {
    condition     = output.url == "https://stores.example.org" && length(module.global.secret_arns) == 1 && output.databases.us-east.address == "10.1.16.10"
    error_message = "One region with its database."
  }
}

run "refuses_what_is_no_account" {
  command = plan
  variables {
    account_id = "me"
  }
  expect_failures = [var.account_id]
}
