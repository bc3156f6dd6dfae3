variable "name" {
  description = "Name of the deployment, the same everywhere."
  type        = string
  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{1,23}$", var.name))
    error_message = "name: 2 to 24 of a-z, 0-9 and '-', beginning with a letter."
  }
}

variable "region" {
  description = "Shortline's name of this region; one of topology."
  type        = string
  validation {
    condition     = contains(keys(var.topology), var.region)
    error_message = "region: not in topology."
  }
}

variable "topology" {
  description = "All regions, the witness included, the same everywhere: where they are and their private networks, from which the fixed addresses of voters and databases follow."
  type = map(object({
    aws_region = string
    cidr       = string # /16 to /20
    witness    = optional(bool, false)
  }))
  validation {
    condition     = alltrue([for r in values(var.topology) : can(cidrhost(r.cidr, 0)) && try(tonumber(split("/", r.cidr)[1]) >= 16 && tonumber(split("/", r.cidr)[1]) <= 20, false)])
    error_message = "topology: cidr must be a network of /16 to /20 such as 10.1.0.0/16."
  }
  validation {
    condition     = length(distinct([for r in values(var.topology) : try(cidrsubnet(r.cidr, 0, 0), r.cidr)])) == length(var.topology)
    error_message = "topology: each region needs a network of its own."
  }
  validation {
    condition     = length(var.topology) != 2
    error_message = "topology: of two voters none may be lost; add a witness in a third place, with witness = true."
  }
}

variable "first_region" {
  description = "The region whose database is made new; the others begin as copies of it. Only looked at by machines without data."
  type        = string
  validation {
    condition     = try(!var.topology[var.first_region].witness, false)
    error_message = "first_region: must be in topology and no witness."
  }
}

variable "instance_profiles" {
  description = "Outputs node_profiles and db_profiles of the global module for this region."
  type        = object({ node = string, db = string })
}

variable "kms_key_arn" {
  description = "Output kms_key_arns of the global module for this region."
  type        = string
}

variable "secret_arn" {
  description = "Output secret_arns of the global module for this region."
  type        = string
}

variable "bucket" {
  description = "Name of the bucket to make for the database's log and backups."
  type        = string
  validation {
    condition     = can(regex("^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$", var.bucket))
    error_message = "bucket: 3 to 63 of a-z, 0-9, '.' and '-'."
  }
}

variable "package_url" {
  description = "Where machines fetch the Debian package of Shortline: https://… or s3://…"
  type        = string
  validation {
    condition     = can(regex("^(https|s3)://[^'\"\\s$`\\\\]+\\.deb$", var.package_url))
    error_message = "package_url: https://… or s3://…, ending with .deb."
  }
}

variable "package_sha256" {
  description = "SHA-256 of that package; another one is not installed."
  type        = string
  validation {
    condition     = can(regex("^[0-9a-f]{64}$", var.package_sha256))
    error_message = "package_sha256: 64 hexadecimal digits."
  }
}

variable "certificate_arn" {
  description = "Certificate (ACM, this AWS region) for clients. null: plain HTTP on port 80, for tests."
  type        = string
  default     = null
}

variable "public_url" {
  description = "Base URL at which clients reach this region, such as https://us-east-stores.example.org."
  type        = string
  validation {
    condition     = can(regex("^https?://[^/\\s]+$", var.public_url))
    error_message = "public_url: https://NAME without a path."
  }
}

variable "client_cidrs" {
  description = "Networks from which clients come."
  type        = list(string)
  default     = ["0.0.0.0/0"]
  validation {
    condition     = alltrue([for c in var.client_cidrs : can(cidrhost(c, 0))])
    error_message = "client_cidrs: networks such as 0.0.0.0/0."
  }
}

variable "dns_zone" {
  description = "Name for which the nodes answer DNS queries themselves (dns = \"delegate\" of the global module); null: they do not."
  type        = string
  default     = null
}

variable "nodes" {
  description = "How many edge nodes, the voter included, and their machines (shortline plan)."
  type = object({
    count         = optional(number, 3)
    instance_type = optional(string, "m7i.large")
    volume_gib    = optional(number, 30)
  })
  default = {}
  validation {
    condition     = var.nodes.count >= 2 && var.nodes.count <= 100 && var.nodes.count == floor(var.nodes.count)
    error_message = "nodes: count from 2, so that losing one is not losing the region, to 100."
  }
}

variable "database" {
  description = "The machine of PostgreSQL, its volume, and what PostgreSQL may use (settings such as shared_buffers = \"2GB\")."
  type = object({
    instance_type = optional(string, "r7i.large")
    volume_gib    = optional(number, 200)
    iops          = optional(number, 3000)
    throughput    = optional(number, 125)
    settings      = optional(map(string), {})
    backup_days   = optional(number, 14)
  })
  default = {}
  validation {
    condition     = var.database.volume_gib >= 20 && var.database.iops >= 3000 && var.database.iops <= 16000 && var.database.throughput >= 125 && var.database.throughput <= 1000
    error_message = "database: volume_gib from 20, iops 3000 to 16000, throughput 125 to 1000 (gp3)."
  }
  validation {
    condition     = alltrue([for k, v in var.database.settings : can(regex("^[a-z_]+$", k)) && can(regex("^[^,='\"\\n]+$", v))])
    error_message = "database: settings have plain names, and values without commas, quotes and '='."
  }
  validation {
    condition     = var.database.backup_days >= 1 && var.database.backup_days <= 365
    error_message = "database: backup_days from 1 to 365."
  }
}

variable "redis" {
  description = "Redis (ElastiCache in cluster mode): its machines, masters, and replicas of each; null: none, details then come from the database."
  type = object({
    node_type = optional(string, "cache.t4g.medium")
    masters   = optional(number, 3)
    replicas  = optional(number, 1)
  })
  default = {}
  validation {
    condition     = var.redis == null || try(var.redis.masters >= 1 && var.redis.masters <= 500 && var.redis.replicas >= 1 && var.redis.replicas <= 5, false)
    error_message = "redis: masters from 1, replicas 1 to 5."
  }
}

variable "nat_per_zone" {
  description = "A NAT gateway in each zone; false: one for all, which is cheaper and can be lost with its zone."
  type        = bool
  default     = true
}

variable "deletion_protection" {
  description = "Machines and the balancer cannot be deleted, by Terraform neither. The destroy runbook sets it to false first."
  type        = bool
  default     = true
}

variable "alarm_emails" {
  description = "Addresses that get alarms; each has to be confirmed by mail."
  type        = list(string)
  default     = []
  validation {
    condition     = alltrue([for a in var.alarm_emails : can(regex("^[^@\\s]+@[^@\\s]+$", a))])
    error_message = "alarm_emails: addresses such as ops@example.org."
  }
}

variable "log_days" {
  description = "How long flow logs are kept."
  type        = number
  default     = 30
  validation {
    condition     = contains([1, 3, 5, 7, 14, 30, 60, 90, 120, 150, 180, 365, 400, 545, 731], var.log_days)
    error_message = "log_days: one of what CloudWatch knows, such as 7, 30, 90, 365."
  }
}

variable "tags" {
  description = "Tags of everything that takes tags."
  type        = map(string)
  default     = {}
}
