variable "name" {
  description = "Name of the deployment."
  type        = string
}

variable "from" {
  description = "Output network of one region or witness: it asks for the peering."
  type = object({
    region          = string
    aws_region      = string
    vpc_id          = string
    cidr            = string
    route_tables    = number # how many; the ids are not known before they are made
    route_table_ids = list(string)
  })
}

variable "to" {
  description = "Output network of the other."
  type = object({
    region          = string
    aws_region      = string
    vpc_id          = string
    cidr            = string
    route_tables    = number
    route_table_ids = list(string)
  })
  validation {
    condition     = var.to.cidr != var.from.cidr
    error_message = "to: both have the CIDR ${var.to.cidr}; networks that are to talk need different ones."
  }
}

variable "tags" {
  description = "Tags of everything that takes tags."
  type        = map(string)
  default     = {}
}
