variable "region" {
  description = "Region of function and servers. The platform does not provide it to the function, so it is set."
  type        = string
  default     = "eu-de"
}

variable "domain_name" {
  description = "Name of the account, such as OTC00000000001000000123"
  type        = string
}

variable "project_name" {
  description = "The one project whose servers may be stopped, such as eu-de or eu-de_lab"
  type        = string
}

variable "name" {
  description = "Name of the function, and beginning of all other names"
  type        = string
  default     = "bms-autostop"

  validation {
    condition     = can(regex("^[A-Za-z][A-Za-z0-9_-]{0,38}[A-Za-z0-9]$", var.name))
    error_message = "Must be 2 to 40 letters, digits, - and _, beginning with a letter and ending with a letter or digit."
  }
}

variable "image" {
  description = "Address of the image in SWR (begins with swr.) to run the container in place of the zip; null for the zip"
  type        = string
  default     = null

  validation {
    condition     = var.image == null || can(regex("^swr\\.", var.image))
    error_message = "The platform pulls from SWR only: the address must begin with swr."
  }
}

variable "keep_image" {
  description = "Address of the image in SWR (begins with swr.) to run keep_servers too, as a container; null for no such function"
  type        = string
  default     = null

  validation {
    condition     = var.keep_image == null || can(regex("^swr\\.", var.keep_image))
    error_message = "The platform pulls from SWR only: the address must begin with swr."
  }
}

variable "keep_tokens" {
  description = "Bearer tokens that callers of keep_servers send, comma-separated. They are kept in the state: encrypt it"
  type        = string
  default     = null
  sensitive   = true
}

variable "dry_run" {
  description = "Report what would be done and send no stop. Set to false once the results are what you want."
  type        = bool
  default     = true
}

variable "server_ids" {
  description = "UUIDs of the servers that the schedule stops; or a selector"
  type        = list(string)
  default     = []

  validation {
    condition     = alltrue([for id in var.server_ids : can(regex("^[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$", id))])
    error_message = "Must be UUIDs."
  }
}

variable "selector" {
  description = "In place of server_ids: every server of the project with these tags, this metadata and this name (a glob)"
  type = object({
    tags     = optional(list(string))
    metadata = optional(map(string))
    name     = optional(string)
  })
  default = null
}

variable "schedule" {
  description = "Schedule: the zone, then second minute hour day month weekday. Which zone applies without it is not documented."
  type        = string
  default     = "CRON_TZ=Europe/Berlin 0 0 20 ? * MON-FRI"

  validation {
    condition     = can(regex("^CRON_TZ=[A-Za-z]+(/[A-Za-z_+-]+)* (\\S+ ){4,5}\\S+$", var.schedule))
    error_message = "Must be CRON_TZ=<zone>, and five or six fields."
  }
}

variable "notice_schedule" {
  description = "When notice of the nightly stop is given, as schedule; earlier than it by notice_for. Without it there is none."
  type        = string
  default     = null

  validation {
    condition     = var.notice_schedule == null || can(regex("^CRON_TZ=[A-Za-z]+(/[A-Za-z_+-]+)* (\\S+ ){4,5}\\S+$", var.notice_schedule))
    error_message = "Must be CRON_TZ=<zone>, and five or six fields."
  }
}

variable "notice_for" {
  description = "How long before the stop the notice is given"
  type        = string
  default     = "1h"

  validation {
    condition     = can(regex("^[1-9][0-9]{0,6}[smhd]$", var.notice_for))
    error_message = "Must be a duration such as 30m or 1h."
  }
}

variable "api" {
  description = "nova or bms: the role allows exactly what that API needs"
  type        = string
  default     = "nova"

  validation {
    condition     = contains(["nova", "bms"], var.api)
    error_message = "Must be nova or bms."
  }
}

variable "settings" {
  description = "Further settings of the function (AUTOSTOP_...). No secrets: they are kept readable in the state and the console."
  type        = map(string)
  default     = {}
}

variable "alert_email" {
  description = "Address that is notified of events that could not be handled; must be confirmed within 48 hours. null for none"
  type        = string
  default     = null
}

variable "log_days" {
  description = "How long the log is kept"
  type        = number
  default     = 30
}
