variable "name" {
  description = "Name of the deployment."
  type        = string
  default     = "shortline"
}

variable "account_id" {
  description = "Number of the AWS account, for the names of buckets."
  type        = string
  validation {
    condition     = can(regex("^[0-9]{12}$", var.account_id))
    error_message = "account_id: 12 digits."
  }
}

variable "zone_id" {
  description = "Hosted zone in Route 53 that the domain is in."
  type        = string
}

variable "domain" {
  description = "Name that clients use, such as stores.example.org."
  type        = string
}

variable "certificate_arns" {
  description = "By region, a certificate (ACM, in that AWS region) for the domain and for REGION-DOMAIN."
  type        = map(string)
}

variable "package_url" {
  description = "Where machines fetch the Debian package: https://… or s3://…"
  type        = string
}

variable "package_sha256" {
  description = "SHA-256 of that package."
  type        = string
}

variable "alarm_emails" {
  description = "Addresses that get alarms."
  type        = list(string)
  default     = []
}
