# Names of the regions, and the one name for all: by Route 53's latency records, or by Shortline's own DNS.

locals {
  named     = var.dns == "none" ? {} : var.endpoints
  latency   = var.dns == "latency" ? var.endpoints : {}
  delegated = var.dns == "delegate" ? var.endpoints : {}
}

resource "aws_route53_record" "region" {
  for_each = local.named

  zone_id = var.zone_id
  name    = "${each.key}-${var.domain}" # beside the domain, so that it stays when that is delegated
  type    = "A"
  alias {
    name                   = each.value.dns_name
    zone_id                = each.value.zone_id
    evaluate_target_health = false
  }
}

resource "aws_route53_health_check" "region" {
  for_each = local.named

  fqdn              = each.value.dns_name
  type              = each.value.tls ? "HTTPS" : "HTTP"
  port              = each.value.tls ? 443 : 80
  resource_path     = "/healthz"
  request_interval  = 10
  failure_threshold = 3
  measure_latency   = true
  tags              = merge(local.tags, { Name = "${var.name}-${each.key}", Region = each.key })
}

resource "aws_route53_record" "latency" {
  for_each = local.latency

  zone_id         = var.zone_id
  name            = var.domain
  type            = "A"
  set_identifier  = each.key
  health_check_id = aws_route53_health_check.region[each.key].id
  latency_routing_policy {
    region = each.value.aws_region
  }
  alias {
    name                   = each.value.dns_name
    zone_id                = each.value.zone_id
    evaluate_target_health = true
  }
}

# The name servers are named beside the domain, so that their addresses are the parent's to tell.
resource "aws_route53_record" "name_server" {
  for_each = local.delegated

  zone_id = var.zone_id
  name    = "ns-${each.key}-${var.domain}"
  type    = "A"
  ttl     = 3600
  records = each.value.addresses
}

resource "aws_route53_record" "delegation" {
  count = length(local.delegated) > 0 ? 1 : 0

  zone_id = var.zone_id
  name    = var.domain
  type    = "NS"
  ttl     = 3600
  records = [for r in aws_route53_record.name_server : r.name]
}

resource "aws_cloudwatch_metric_alarm" "region" {
  for_each = local.named

  region              = "us-east-1" # where Route 53 keeps its metrics
  alarm_name          = "${var.name}-${each.key}-unreachable"
  alarm_description   = "Shortline in ${each.key} does not answer /healthz from outside. docs/operations/regions.md"
  namespace           = "AWS/Route53"
  metric_name         = "HealthCheckStatus"
  dimensions          = { HealthCheckId = aws_route53_health_check.region[each.key].id }
  statistic           = "Minimum"
  comparison_operator = "LessThanThreshold"
  threshold           = 1
  period              = 60
  evaluation_periods  = 2
  treat_missing_data  = "breaching"
  alarm_actions       = var.alarm_topic_arn == null ? [] : [var.alarm_topic_arn]
  ok_actions          = var.alarm_topic_arn == null ? [] : [var.alarm_topic_arn]
  tags                = local.tags
}
