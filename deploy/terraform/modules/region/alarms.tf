resource "aws_sns_topic" "alarms" {
  region            = local.aws
  name              = "${local.prefix}-alarms"
  kms_master_key_id = var.kms_key_arn
  tags              = local.tags
}

resource "aws_sns_topic_subscription" "alarms" {
  for_each = toset(var.alarm_emails)

  region    = local.aws
  topic_arn = aws_sns_topic.alarms.arn
  protocol  = "email"
  endpoint  = each.value
}

locals {
  balancer = { LoadBalancer = aws_lb.this.arn_suffix, TargetGroup = aws_lb_target_group.api.arn_suffix }
  alarms = merge(
    {
      nodes-down = {
        text      = "Fewer nodes than half answer in ${var.region}.", namespace = "AWS/NetworkELB", metric = "HealthyHostCount", dimensions = local.balancer
        statistic = "Minimum", below = true, threshold = ceil(var.nodes.count / 2), minutes = 3, missing = "breaching"
      }
      node-down = {
        text      = "A node in ${var.region} does not answer.", namespace = "AWS/NetworkELB", metric = "UnHealthyHostCount", dimensions = local.balancer
        statistic = "Maximum", below = false, threshold = 1, minutes = 10, missing = "notBreaching"
      }
      db-down = {
        text      = "The database machine of ${var.region} is not well.", namespace = "AWS/EC2", metric = "StatusCheckFailed", dimensions = { InstanceId = aws_instance.db.id }
        statistic = "Maximum", below = false, threshold = 1, minutes = 2, missing = "breaching"
      }
      voter-down = {
        text      = "The voter's machine of ${var.region} is not well.", namespace = "AWS/EC2", metric = "StatusCheckFailed", dimensions = { InstanceId = aws_instance.voter.id }
        statistic = "Maximum", below = false, threshold = 1, minutes = 2, missing = "breaching"
      }
      db-cpu = {
        text      = "The database machine of ${var.region} is busy.", namespace = "AWS/EC2", metric = "CPUUtilization", dimensions = { InstanceId = aws_instance.db.id }
        statistic = "Average", below = false, threshold = 80, minutes = 15, missing = "missing"
      }
      nodes-cpu = {
        text      = "The nodes of ${var.region} are busy.", namespace = "AWS/EC2", metric = "CPUUtilization", dimensions = { AutoScalingGroupName = aws_autoscaling_group.node.name }
        statistic = "Average", below = false, threshold = 70, minutes = 15, missing = "missing"
      }
      db-volume = {
        text      = "The database's volume in ${var.region} keeps it waiting.", namespace = "AWS/EBS", metric = "VolumeQueueLength", dimensions = { VolumeId = aws_ebs_volume.db.id }
        statistic = "Average", below = false, threshold = 32, minutes = 10, missing = "missing"
      }
    },
    var.redis == null ? {} : {
      redis-memory = {
        text       = "Redis in ${var.region} throws out what is still asked for.", namespace = "AWS/ElastiCache", metric = "DatabaseMemoryUsagePercentage"
        dimensions = { ReplicationGroupId = aws_elasticache_replication_group.this[0].id }, statistic = "Maximum", below = false, threshold = 90, minutes = 30, missing = "missing"
      }
      redis-cpu = {
        text       = "Redis in ${var.region} is busy.", namespace = "AWS/ElastiCache", metric = "EngineCPUUtilization"
        dimensions = { ReplicationGroupId = aws_elasticache_replication_group.this[0].id }, statistic = "Maximum", below = false, threshold = 80, minutes = 15, missing = "missing"
      }
    },
  )
}

resource "aws_cloudwatch_metric_alarm" "this" {
  for_each = local.alarms

  region              = local.aws
  alarm_name          = "${local.prefix}-${each.key}"
  alarm_description   = each.value.text
  namespace           = each.value.namespace
  metric_name         = each.value.metric
  dimensions          = each.value.dimensions
  statistic           = each.value.statistic
  comparison_operator = each.value.below ? "LessThanThreshold" : "GreaterThanOrEqualToThreshold"
  threshold           = each.value.threshold
  period              = 60
  evaluation_periods  = each.value.minutes
  treat_missing_data  = each.value.missing
  alarm_actions       = [aws_sns_topic.alarms.arn]
  ok_actions          = [aws_sns_topic.alarms.arn]
  tags                = local.tags
}
