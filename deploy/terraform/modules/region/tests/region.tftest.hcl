mock_provider "aws" {
  mock_data "aws_availability_zones" {
    defaults = { names = ["us-east-1a", "us-east-1b", "us-east-1c", "us-east-1d"] }
  }
  mock_data "aws_ssm_parameter" {
    defaults = { value = "ami-12345678" }
  }
  mock_resource "aws_ebs_volume" {
    defaults = { id = "vol-0abc" }
  }
}

variables {
  name   = "shortline"
  region = "us-east"
  topology = {
    us-east = { aws_region = "us-east-1", cidr = "10.1.0.0/16" }
    eu-west = { aws_region = "eu-west-1", cidr = "10.2.0.0/16" }
    witness = { aws_region = "us-west-2", cidr = "10.3.0.0/20", witness = true }
  }
  first_region      = "us-east"
  instance_profiles = { node = "shortline-us-east-node", db = "shortline-us-east-db" }
  kms_key_arn       = "arn:aws:kms:us-east-1:123456789012:key/1"
  secret_arn        = "arn:aws:secretsmanager:us-east-1:123456789012:secret:shortline/us-east"
  bucket            = "shortline-us-east-log"
  package_url       = "https://example.org/shortline_1.0.0_amd64.deb"
  package_sha256    = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
  certificate_arn   = "arn:aws:acm:us-east-1:123456789012:certificate/1"
  public_url        = "https://us-east-stores.example.org"
  alarm_emails      = ["ops@example.org"]
}

run "network" {
  assert {
    condition     = join(",", [for s in aws_subnet.private : "${s.cidr_block} ${s.availability_zone}"]) == "10.1.0.0/20 us-east-1a,10.1.16.0/20 us-east-1b,10.1.32.0/20 us-east-1c"
    error_message = "Three private networks in three zones."
  }
  assert {
    condition     = aws_vpc.this.region == "us-east-1" && aws_lb.this.region == "us-east-1" && aws_elasticache_replication_group.this[0].region == "us-east-1" && aws_s3_bucket.log.region == "us-east-1"
    error_message = "Everything stands in the region, whatever the provider's is."
  }
  assert {
    condition     = length(aws_nat_gateway.this) == 3
    error_message = "A gateway in each zone."
  }
}

run "doors" {
  assert {
    condition     = toset([for k, r in aws_vpc_security_group_ingress_rule.this : r.from_port if r.cidr_ipv4 == "0.0.0.0/0"]) == toset([443])
    error_message = "The world reaches the balancer's port 443 and nothing else."
  }
  assert {
    condition     = alltrue([for r in values(aws_vpc_security_group_ingress_rule.this) : r.from_port == r.to_port && r.from_port != 22 && r.from_port != 8081])
    error_message = "No ranges, no SSH, no admin port."
  }
  assert {
    condition     = contains(keys(aws_vpc_security_group_ingress_rule.this), "control from witness") && !contains(keys(aws_vpc_security_group_ingress_rule.this), "postgres from witness")
    error_message = "A witness votes and has nothing to do with the database."
  }
  assert {
    condition     = aws_instance.db.metadata_options[0].http_tokens == "required" && aws_instance.voter.metadata_options[0].http_tokens == "required" && aws_launch_template.node.metadata_options[0].http_tokens == "required"
    error_message = "Machines' credentials are had by IMDSv2 only."
  }
  assert {
    condition     = aws_lb_listener.api.protocol == "TLS" && aws_lb_listener.api.port == 443
    error_message = "Clients come by TLS."
  }
}

run "kept" {
  assert {
    condition     = aws_ebs_volume.db.encrypted && aws_ebs_volume.db.final_snapshot && aws_instance.db.root_block_device[0].encrypted && aws_instance.voter.root_block_device[0].encrypted && aws_elasticache_replication_group.this[0].at_rest_encryption_enabled && aws_sns_topic.alarms.kms_master_key_id == var.kms_key_arn
    error_message = "All that is kept is encrypted."
  }
  assert {
    condition     = aws_lb.this.enable_deletion_protection && aws_instance.db.disable_api_termination && aws_instance.voter.disable_api_termination && !aws_s3_bucket.log.force_destroy
    error_message = "Nothing of this is deleted by mistake."
  }
  assert {
    condition     = aws_s3_bucket_public_access_block.log.restrict_public_buckets && aws_s3_bucket_public_access_block.log.block_public_policy && aws_s3_bucket_versioning.log.versioning_configuration[0].status == "Enabled"
    error_message = "The log is private, and what is deleted stays for a while."
  }
  assert {
    condition     = aws_instance.db.tags.Region == "us-east" && aws_ebs_volume.db.tags.Deployment == "shortline"
    error_message = "There are tags."
  }
}

run "addresses_and_settings" {
  assert {
    condition     = aws_instance.voter.private_ip == "10.1.0.10" && aws_instance.db.private_ip == "10.1.16.10"
    error_message = "The voter and the database are where the others look for them."
  }
  assert {
    condition     = local.voter_env.SHORTLINE_CONTROL_VOTERS == "eu-west=10.2.0.10:8090,us-east=10.1.0.10:8090,witness=10.3.0.10:8090" && local.node_env.SHORTLINE_DB_AGENTS == "eu-west=10.2.16.10:8083,us-east=10.1.16.10:8083"
    error_message = "All voters, and the agents of those with a database."
  }
  assert {
    condition     = !contains(keys(local.node_env), "SHORTLINE_CONTROL_LISTEN") && local.voter_env.SHORTLINE_CONTROL_LISTEN == "@ADDRESS@:8090"
    error_message = "One node votes."
  }
  assert {
    condition     = local.db_env.SHORTLINE_DB_INIT == "true" && local.db_env.SHORTLINE_DB_PEER == "eu-west=10.2.16.10:5432" && !contains(keys(local.db_env), "SHORTLINE_DB_ALONE")
    error_message = "The first region's database is made new."
  }
  assert {
    condition     = aws_autoscaling_group.node.desired_capacity == 2
    error_message = "Three nodes, one of them the voter."
  }
  assert {
    condition     = !strcontains(local.node_data, "BEGIN") && strcontains(local.node_data, "sha256sum -c") && strcontains(local.db_data, "vol0abc") && strcontains(local.db_data, "repo1-s3-bucket=shortline-us-east-log")
    error_message = "Machines compare the sum of the package, and find their volume and bucket."
  }
}

run "alarms" {
  assert {
    condition     = toset(keys(aws_cloudwatch_metric_alarm.this)) == toset(["nodes-down", "node-down", "db-down", "voter-down", "db-cpu", "nodes-cpu", "db-volume", "redis-memory", "redis-cpu"])
    error_message = "There is an alarm for each."
  }
  assert {
    condition     = aws_cloudwatch_metric_alarm.this["nodes-down"].comparison_operator == "LessThanThreshold" && aws_cloudwatch_metric_alarm.this["nodes-down"].threshold == 2
    error_message = "Two of three have to answer."
  }
  assert {
    condition     = [for s in values(aws_sns_topic_subscription.alarms) : s.endpoint] == ["ops@example.org"]
    error_message = "Somebody is told."
  }
}

run "another_region" {
  variables {
    region = "eu-west"
  }
  assert {
    condition     = aws_vpc.this.region == "eu-west-1" && local.db_env.SHORTLINE_DB_INIT_FROM == "us-east" && !contains(keys(local.db_env), "SHORTLINE_DB_INIT")
    error_message = "The others begin as copies of the first."
  }
}

run "alone_and_small" {
  variables {
    topology            = { us-east = { aws_region = "us-east-1", cidr = "10.1.0.0/16" } }
    redis               = null
    nat_per_zone        = false
    certificate_arn     = null
    deletion_protection = false
    nodes               = { count = 2 }
  }
  assert {
    condition     = local.db_env.SHORTLINE_DB_ALONE == "true" && !contains(keys(local.voter_env), "SHORTLINE_CONTROL_LISTEN") && length(aws_elasticache_replication_group.this) == 0 && !contains(keys(local.node_env), "SHORTLINE_REDIS")
    error_message = "One region has no control plane, and this one no Redis."
  }
  assert {
    condition     = aws_lb_listener.api.port == 80 && aws_lb_listener.api.protocol == "TCP" && length(aws_nat_gateway.this) == 1
    error_message = "Plain HTTP, one gateway."
  }
}

run "own_dns" {
  variables {
    dns_zone = "stores.example.org"
  }
  assert {
    condition     = local.node_env.SHORTLINE_DNS_NS == "ns-eu-west-stores.example.org,ns-us-east-stores.example.org" && length(split(",", local.node_env.SHORTLINE_PUBLIC_ADDR)) == 3
    error_message = "Name servers of regions with data, and the addresses of this one."
  }
  assert {
    condition     = aws_lb_listener.dns[0].protocol == "TCP_UDP" && length([for k in keys(aws_vpc_security_group_ingress_rule.this) : k if startswith(k, "dns ")]) == 4
    error_message = "Queries come in by UDP and TCP."
  }
}

run "refuses" {
  command = plan
  variables {
    name           = "S"
    topology       = { us-east = { aws_region = "us-east-1", cidr = "10.1.0.0/24" }, eu-west = { aws_region = "eu-west-1", cidr = "10.1.0.0/24" } }
    bucket         = "Log"
    package_url    = "http://example.org/shortline.deb"
    package_sha256 = "none"
    public_url     = "us-east-stores.example.org"
    client_cidrs   = ["everybody"]
    nodes          = { count = 1 }
    database       = { iops = 100, settings = { archive_command = "a,b" }, backup_days = 0 }
    redis          = { replicas = 0 }
    alarm_emails   = ["nobody"]
    log_days       = 31
  }
  expect_failures = [var.name, var.topology, var.bucket, var.package_url, var.package_sha256, var.public_url, var.client_cidrs, var.nodes, var.database, var.redis, var.alarm_emails, var.log_days]
}

run "refuses_unknown_regions" {
  command = plan
  variables {
    region       = "mars"
    first_region = "witness"
  }
  expect_failures = [var.region, var.first_region]
}
