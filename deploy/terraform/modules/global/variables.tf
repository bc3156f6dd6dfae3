variable "name" {
  description = "Name of the deployment: shortline's --deployment, and the beginning of the names of what is made."
  type        = string
  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{1,23}$", var.name))
    error_message = "name: 2 to 24 of a-z, 0-9 and '-', beginning with a letter."
  }
}

variable "regions" {
  description = "Shortline's name of each region, its AWS region, and the bucket of its log. A witness has no bucket."
  type = map(object({
    aws_region = string
    bucket     = optional(string)
  }))
  validation {
    condition     = length(var.regions) > 0 && alltrue([for r in keys(var.regions) : can(regex("^[a-z][a-z0-9-]{0,30}$", r))])
    error_message = "regions: one at least, each named with a-z, 0-9 and '-', beginning with a letter."
  }
  validation {
    condition     = alltrue([for r in values(var.regions) : can(regex("^[a-z]{2}(-[a-z]+)+-[0-9]$", r.aws_region))])
    error_message = "regions: aws_region must be one such as us-east-1."
  }
}

variable "secrets_recovery_days" {
  description = "How long a deleted secret can be brought back, 7 to 30 days."
  type        = number
  default     = 30
  validation {
    condition     = var.secrets_recovery_days >= 7 && var.secrets_recovery_days <= 30
    error_message = "secrets_recovery_days: 7 to 30."
  }
}

variable "package_bucket_arn" {
  description = "ARN of the bucket from which machines fetch the Debian package (package_url beginning with s3://); null: they fetch it by https."
  type        = string
  default     = null
}

variable "tags" {
  description = "Tags of everything that takes tags."
  type        = map(string)
  default     = {}
}

variable "dns" {
  description = "latency: records by latency, with health checks, in Route 53. delegate: Shortline's own DNS answers for the domain. none: neither."
  type        = string
  default     = "latency"
  validation {
    condition     = contains(["latency", "delegate", "none"], var.dns)
    error_message = "dns: latency, delegate or none."
  }
}

variable "zone_id" {
  description = "Hosted zone in Route 53 that the domain is in (its parent where it is delegated)."
  type        = string
  default     = null
  validation {
    condition     = var.dns == "none" || var.zone_id != null
    error_message = "zone_id: needed unless dns = \"none\"."
  }
}

variable "domain" {
  description = "Name that clients use, such as stores.example.org."
  type        = string
  default     = null
  validation {
    condition     = var.dns == "none" || can(regex("^[a-z0-9-]+(\\.[a-z0-9-]+)+$", var.domain))
    error_message = "domain: a name such as stores.example.org, needed unless dns = \"none\"."
  }
}

variable "endpoints" {
  description = "Output endpoint of each region module, by region; without witnesses."
  type = map(object({
    aws_region = string
    dns_name   = string
    zone_id    = string
    tls        = bool
    addresses  = list(string)
  }))
  default = {}
}

variable "alarm_topic_arn" {
  description = "SNS topic in us-east-1 that is told when a health check fails; null: none."
  type        = string
  default     = null
}
