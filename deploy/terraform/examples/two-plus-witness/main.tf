# Two regions, either of which may be lost, and a witness in a third place that keeps the majority.

provider "aws" {
  region = "us-east-1" # of what is global; everything else says its region
}

locals {
  topology = {
    us-east = { aws_region = "us-east-1", cidr = "10.1.0.0/16" }
    eu-west = { aws_region = "eu-west-1", cidr = "10.2.0.0/16" }
    witness = { aws_region = "us-west-2", cidr = "10.3.0.0/20", witness = true }
  }
  tags = { ManagedBy = "terraform", Service = "shortline" }
  # Names of buckets are unique in all of AWS; the account's number makes these so.
  buckets = { for region, r in local.topology : region => "${var.name}-${region}-log-${var.account_id}" if !try(r.witness, false) }
}

module "global" {
  source = "../../modules/global"

  name      = var.name
  regions   = { for region, r in local.topology : region => { aws_region = r.aws_region, bucket = lookup(local.buckets, region, null) } }
  dns       = "latency"
  zone_id   = var.zone_id
  domain    = var.domain
  endpoints = { us-east = module.us_east.endpoint, eu-west = module.eu_west.endpoint }
  # Route 53 tells its alarms in us-east-1.
  alarm_topic_arn = module.us_east.alarm_topic_arn
  tags            = local.tags
}

module "us_east" {
  source = "../../modules/region"

  name              = var.name
  region            = "us-east"
  topology          = local.topology
  first_region      = "us-east"
  instance_profiles = { node = module.global.node_profiles["us-east"], db = module.global.db_profiles["us-east"] }
  kms_key_arn       = module.global.kms_key_arns["us-east"]
  secret_arn        = module.global.secret_arns["us-east"]
  bucket            = local.buckets["us-east"]
  package_url       = var.package_url
  package_sha256    = var.package_sha256
  certificate_arn   = var.certificate_arns["us-east"]
  public_url        = "https://us-east-${var.domain}"
  alarm_emails      = var.alarm_emails
  tags              = local.tags
}

module "eu_west" {
  source = "../../modules/region"

  name              = var.name
  region            = "eu-west"
  topology          = local.topology
  first_region      = "us-east"
  instance_profiles = { node = module.global.node_profiles["eu-west"], db = module.global.db_profiles["eu-west"] }
  kms_key_arn       = module.global.kms_key_arns["eu-west"]
  secret_arn        = module.global.secret_arns["eu-west"]
  bucket            = local.buckets["eu-west"]
  package_url       = var.package_url
  package_sha256    = var.package_sha256
  certificate_arn   = var.certificate_arns["eu-west"]
  public_url        = "https://eu-west-${var.domain}"
  alarm_emails      = var.alarm_emails
  tags              = local.tags
}

module "witness" {
  source = "../../modules/witness"

  name             = var.name
  region           = "witness"
  topology         = local.topology
  instance_profile = module.global.node_profiles["witness"]
  kms_key_arn      = module.global.kms_key_arns["witness"]
  secret_arn       = module.global.secret_arns["witness"]
  package_url      = var.package_url
  package_sha256   = var.package_sha256
  tags             = local.tags
}

module "us_east_eu_west" {
  source = "../../modules/peering"

  name = var.name
  from = module.us_east.network
  to   = module.eu_west.network
  tags = local.tags
}

module "us_east_witness" {
  source = "../../modules/peering"

  name = var.name
  from = module.us_east.network
  to   = module.witness.network
  tags = local.tags
}

module "eu_west_witness" {
  source = "../../modules/peering"

  name = var.name
  from = module.eu_west.network
  to   = module.witness.network
  tags = local.tags
}
