# Three regions, any of which may be lost.

provider "aws" {
  region = "us-east-1" # of what is global; everything else says its region
}

locals {
  topology = {
    us-east      = { aws_region = "us-east-1", cidr = "10.1.0.0/16" }
    eu-west      = { aws_region = "eu-west-1", cidr = "10.2.0.0/16" }
    ap-southeast = { aws_region = "ap-southeast-1", cidr = "10.3.0.0/16" }
  }
  tags = { ManagedBy = "terraform", Service = "shortline" }
  # Names of buckets are unique in all of AWS; the account's number makes these so.
  buckets = { for region in keys(local.topology) : region => "${var.name}-${region}-log-${var.account_id}" }
}

module "global" {
  source = "../../modules/global"

  name      = var.name
  regions   = { for region, r in local.topology : region => { aws_region = r.aws_region, bucket = local.buckets[region] } }
  dns       = "latency"
  zone_id   = var.zone_id
  domain    = var.domain
  endpoints = { us-east = module.us_east.endpoint, eu-west = module.eu_west.endpoint, ap-southeast = module.ap_southeast.endpoint }
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

module "ap_southeast" {
  source = "../../modules/region"

  name              = var.name
  region            = "ap-southeast"
  topology          = local.topology
  first_region      = "us-east"
  instance_profiles = { node = module.global.node_profiles["ap-southeast"], db = module.global.db_profiles["ap-southeast"] }
  kms_key_arn       = module.global.kms_key_arns["ap-southeast"]
  secret_arn        = module.global.secret_arns["ap-southeast"]
  bucket            = local.buckets["ap-southeast"]
  package_url       = var.package_url
  package_sha256    = var.package_sha256
  certificate_arn   = var.certificate_arns["ap-southeast"]
  public_url        = "https://ap-southeast-${var.domain}"
  alarm_emails      = var.alarm_emails
  tags              = local.tags
}

module "us_east_eu_west" {
  source = "../../modules/peering"

  name = var.name
  from = module.us_east.network
  to   = module.eu_west.network
  tags = local.tags
}

module "us_east_ap_southeast" {
  source = "../../modules/peering"

  name = var.name
  from = module.us_east.network
  to   = module.ap_southeast.network
  tags = local.tags
}

module "eu_west_ap_southeast" {
  source = "../../modules/peering"

  name = var.name
  from = module.eu_west.network
  to   = module.ap_southeast.network
  tags = local.tags
}
