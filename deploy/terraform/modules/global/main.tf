# What is made once for all regions: the role of the machines of each region, and the secrets with the key that encrypts them.
# No secret's value is here or in the state: an operator puts it there (README, "Secrets").

locals {
  tags = merge(var.tags, { Deployment = var.name })
  # What machines of each kind may do, beside reading their region's secret.
  kinds = {
    node = { bucket = false }
    db   = { bucket = true }
  }
  roles = merge([for region, r in var.regions : {
    for kind, k in local.kinds : "${region}-${kind}" => { region = region, aws_region = r.aws_region, bucket = k.bucket ? r.bucket : null }
    if !(kind == "db" && r.bucket == null)
  }]...)
}

data "aws_caller_identity" "this" {}

data "aws_partition" "this" {}

resource "aws_kms_key" "secrets" {
  for_each = var.regions

  region                  = each.value.aws_region
  description             = "Shortline ${var.name}: secrets, volumes and logs of ${each.key}"
  enable_key_rotation     = true
  deletion_window_in_days = 30
  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [
      {
        Sid       = "TheAccountDecidesByPolicies"
        Effect    = "Allow"
        Principal = { AWS = "arn:${data.aws_partition.this.partition}:iam::${data.aws_caller_identity.this.account_id}:root" }
        Action    = "kms:*"
        Resource  = "*"
      },
      {
        Sid       = "AlarmsAndLogs"
        Effect    = "Allow"
        Principal = { Service = ["cloudwatch.amazonaws.com", "logs.${each.value.aws_region}.amazonaws.com"] }
        Action    = ["kms:Decrypt", "kms:Encrypt", "kms:GenerateDataKey*", "kms:DescribeKey"]
        Resource  = "*"
        Condition = { StringEquals = { "aws:SourceAccount" = data.aws_caller_identity.this.account_id } }
      },
      {
        Sid       = "VolumesOfTheGroup"
        Effect    = "Allow"
        Principal = { AWS = "arn:${data.aws_partition.this.partition}:iam::${data.aws_caller_identity.this.account_id}:role/aws-service-role/autoscaling.amazonaws.com/AWSServiceRoleForAutoScaling" }
        Action    = ["kms:Encrypt", "kms:Decrypt", "kms:ReEncrypt*", "kms:GenerateDataKey*", "kms:DescribeKey", "kms:CreateGrant"]
        Resource  = "*"
      },
    ]
  })
  tags = merge(local.tags, { Name = "${var.name}-${each.key}", Region = each.key })
}

resource "aws_kms_alias" "secrets" {
  for_each = var.regions

  region        = each.value.aws_region
  name          = "alias/${var.name}-${each.key}"
  target_key_id = aws_kms_key.secrets[each.key].key_id
}

resource "aws_secretsmanager_secret" "region" {
  for_each = var.regions

  region                  = each.value.aws_region
  name                    = "${var.name}/${each.key}"
  description             = "Cluster key, passwords and certificates of Shortline in ${each.key}; see deploy/terraform/README.md"
  kms_key_id              = aws_kms_key.secrets[each.key].arn
  recovery_window_in_days = var.secrets_recovery_days
  tags                    = merge(local.tags, { Region = each.key })
}

resource "aws_iam_role" "machine" {
  for_each = local.roles

  name = "${var.name}-${each.key}"
  assume_role_policy = jsonencode({
    Version   = "2012-10-17"
    Statement = [{ Effect = "Allow", Principal = { Service = "ec2.amazonaws.com" }, Action = "sts:AssumeRole" }]
  })
  tags = merge(local.tags, { Region = each.value.region })
}

resource "aws_iam_role_policy" "machine" {
  for_each = local.roles

  name = "shortline"
  role = aws_iam_role.machine[each.key].id
  policy = jsonencode({
    Version = "2012-10-17"
    Statement = concat(
      [
        {
          Sid      = "ReadTheSecretOfTheRegion"
          Effect   = "Allow"
          Action   = ["secretsmanager:GetSecretValue"]
          Resource = [aws_secretsmanager_secret.region[each.value.region].arn]
        },
        {
          Sid      = "DecryptIt"
          Effect   = "Allow"
          Action   = ["kms:Decrypt"]
          Resource = [aws_kms_key.secrets[each.value.region].arn]
        },
      ],
      each.value.bucket == null ? [] : [
        {
          Sid      = "ListTheLog"
          Effect   = "Allow"
          Action   = ["s3:ListBucket", "s3:GetBucketLocation"]
          Resource = ["arn:${data.aws_partition.this.partition}:s3:::${each.value.bucket}"]
        },
        {
          Sid      = "WriteAndReadTheLog"
          Effect   = "Allow"
          Action   = ["s3:GetObject", "s3:PutObject", "s3:DeleteObject"]
          Resource = ["arn:${data.aws_partition.this.partition}:s3:::${each.value.bucket}/*"]
        },
        {
          Sid      = "EncryptTheLog"
          Effect   = "Allow"
          Action   = ["kms:GenerateDataKey"]
          Resource = [aws_kms_key.secrets[each.value.region].arn]
        },
      ],
      var.package_bucket_arn == null ? [] : [
        {
          Sid      = "FetchThePackage"
          Effect   = "Allow"
          Action   = ["s3:GetObject"]
          Resource = ["${var.package_bucket_arn}/*"]
        },
      ],
    )
  })
}

# A shell on a machine without an open port, for people who may: AWS Systems Manager.
resource "aws_iam_role_policy_attachment" "session" {
  for_each = local.roles

  role       = aws_iam_role.machine[each.key].name
  policy_arn = "arn:${data.aws_partition.this.partition}:iam::aws:policy/AmazonSSMManagedInstanceCore"
}

resource "aws_iam_instance_profile" "machine" {
  for_each = local.roles

  name = "${var.name}-${each.key}"
  role = aws_iam_role.machine[each.key].name
  tags = local.tags
}
