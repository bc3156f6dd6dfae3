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
    condition     = try(var.topology[var.region].witness, false)
    error_message = "region: must be in topology, with witness = true."
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

variable "instance_profile" {
  description = "Output node_profiles of the global module for the witness."
  type        = string
}

variable "kms_key_arn" {
  description = "Output kms_key_arns of the global module for this region."
  type        = string
}

variable "secret_arn" {
  description = "Output secret_arns of the global module for this region."
  type        = string
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

variable "instance_type" {
  description = "A witness does next to nothing."
  type        = string
  default     = "t3.micro"
}

variable "deletion_protection" {
  description = "The machine cannot be deleted, by Terraform neither. The destroy runbook sets it to false first."
  type        = bool
  default     = true
}

variable "tags" {
  description = "Tags of everything that takes tags."
  type        = map(string)
  default     = {}
}
