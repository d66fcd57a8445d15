locals {
  zip       = "${path.module}/../../dist/functiongraph.zip"
  container = var.image != null

  # The actions of reading, listing and stopping a server, and those that these need in turn by the cloud's documentation.
  actions = {
    nova = [
      "ecs:servers:get", "ecs:servers:list", "ecs:servers:stop",
      "ecs:serverVolumes:use", "ecs:diskConfigs:use", "ecs:securityGroups:use", "ecs:serverKeypairs:get",
      "vpc:securityGroups:get", "vpc:securityGroupRules:get", "vpc:networks:get", "vpc:subnets:get", "vpc:ports:get",
      "vpc:routers:get",
    ]
    keep = [
      "ecs:servers:get", "ecs:servers:list", "ecs:servers:setMetadata",
      "ecs:serverVolumes:use", "ecs:diskConfigs:use", "ecs:securityGroups:use", "ecs:serverKeypairs:get",
      "vpc:securityGroups:get", "vpc:securityGroupRules:get", "vpc:networks:get", "vpc:subnets:get", "vpc:ports:get",
      "vpc:routers:get",
    ]
    bms = ["bms:servers:get", "bms:servers:list", "bms:servers:stop", "ecs:*:get", "ecs:*:list"]
  }

  # A container answers POST /invoke of the platform. Only the platform can reach it, so it does not authenticate callers.
  # The zip serves no HTTP: the setting applies to the trigger of API Gateway alone, which is not made here.
  settings = merge(
    {
      AUTOSTOP_INBOUND_AUTH = "none"
      AUTOSTOP_API          = var.api
      AUTOSTOP_DRY_RUN      = tostring(var.dry_run)
      AUTOSTOP_DEADLINE     = "50s"
      OS_AUTH_URL           = "https://iam.${var.region}.otc.t-systems.com/v3"
      OS_REGION_NAME        = var.region
    },
    local.container ? { PORT = "8000" } : {},
    var.settings,
  )

  # What the schedule asks for. The function refuses an event with both, and a member that is null counts as absent.
  scheduled = {
    for name, value in {
      server_ids = length(var.server_ids) > 0 ? var.server_ids : null
      selector   = var.selector == null ? null : { for part, wanted in var.selector : part => wanted if wanted != null }
      reason     = "nightly"
    } : name => value if value != null
  }

  # The notice before it: a dry run about the same servers.
  notice = merge(local.scheduled, { dry_run = true, notice_for = var.notice_for })
}

# --- what the function may do

resource "opentelekomcloud_identity_role_v3" "stop" {
  display_name  = "${var.name}-stop"
  display_layer = "project"
  description   = "Read bare metal servers and stop them; publish results and failures"

  statement {
    effect = "Allow"
    action = local.actions[var.api]
  }

  statement {
    effect = "Allow"
    action = ["smn:topic:list", "smn:topic:publish"]
  }
}

resource "opentelekomcloud_identity_agency_v3" "function" {
  name                  = var.name
  description           = "Lets FunctionGraph stop bare metal servers in one project"
  delegated_domain_name = "op_svc_cff"

  project_role {
    project = var.project_name
    # There is no smaller role for pulling an image.
    roles = concat([opentelekomcloud_identity_role_v3.stop.display_name], local.container ? ["SWR Administrator"] : [])
  }

  depends_on = [opentelekomcloud_identity_role_v3.stop]
}

# --- the function

resource "opentelekomcloud_lts_group_v2" "function" {
  group_name  = var.name
  ttl_in_days = var.log_days
}

resource "opentelekomcloud_lts_stream_v2" "function" {
  group_id    = opentelekomcloud_lts_group_v2.function.id
  stream_name = var.name
}

# The API reference names runtimes up to Python 3.10, manual and console Python 3.12. If 3.12 is refused, set var.image:
# the container has its own Python.
resource "opentelekomcloud_fgs_function_v2" "stop" {
  name      = var.name
  app       = "default"
  runtime   = local.container ? "Custom Image" : "Python3.12"
  handler   = local.container ? "-" : "index.handler"
  code_type = local.container ? "Custom-Image-Swr" : "zip"

  code_filename = local.container ? null : basename(local.zip)
  func_code     = local.container ? null : filebase64(local.zip)

  dynamic "custom_image" {
    for_each = local.container ? [var.image] : []

    content {
      url = custom_image.value
    }
  }

  initializer_handler = local.container ? "-" : "index.initializer"
  initializer_timeout = 30

  # AUTOSTOP_DEADLINE < timeout: the function gives up by itself, and logs why, before the platform ends it.
  timeout               = 90
  memory_size           = 256
  max_instance_num      = "3"
  concurrency_num       = local.container ? 8 : 1
  agency                = opentelekomcloud_identity_agency_v3.function.name
  user_data             = jsonencode(local.settings)
  enable_auth_in_header = local.container ? true : null

  log_group_id   = opentelekomcloud_lts_group_v2.function.id
  log_group_name = opentelekomcloud_lts_group_v2.function.group_name
  log_topic_id   = opentelekomcloud_lts_stream_v2.function.id
  log_topic_name = opentelekomcloud_lts_stream_v2.function.stream_name

  lifecycle {
    precondition {
      condition     = length(jsonencode(local.settings)) <= 4096 && length(local.settings) <= 20
      error_message = "The platform takes at most 20 variables, of 4096 characters together."
    }
  }
}

# --- what starts it

resource "opentelekomcloud_fgs_trigger_v2" "nightly" {
  function_urn = opentelekomcloud_fgs_function_v2.stop.urn
  type         = "TIMER"

  event_data = jsonencode({
    name          = "nightly"
    schedule_type = "Cron"
    schedule      = var.schedule
    user_event    = jsonencode(local.scheduled)
  })

  lifecycle {
    precondition {
      condition     = (length(var.server_ids) > 0) != (var.selector != null)
      error_message = "Set either server_ids or selector."
    }
  }
}

# The result goes to the topic of results like any other, and from there to notify_chat, if that is subscribed.
resource "opentelekomcloud_fgs_trigger_v2" "notice" {
  count = var.notice_schedule == null ? 0 : 1

  function_urn = opentelekomcloud_fgs_function_v2.stop.urn
  type         = "TIMER"

  event_data = jsonencode({
    name          = "notice"
    schedule_type = "Cron"
    schedule      = var.notice_schedule
    user_event    = jsonencode(local.notice)
  })
}

resource "opentelekomcloud_smn_topic_v2" "requests" {
  name         = "${var.name}-requests"
  display_name = "Stop requests and alarms"
}

resource "opentelekomcloud_fgs_trigger_v2" "requests" {
  function_urn = opentelekomcloud_fgs_function_v2.stop.urn
  type         = "SMN"
  event_data   = jsonencode({ topic_urn = opentelekomcloud_smn_topic_v2.requests.topic_urn })
}

# --- events that fail

resource "opentelekomcloud_smn_topic_v2" "failures" {
  name         = "${var.name}-failures"
  display_name = "Stop requests that were not handled"
}

resource "opentelekomcloud_smn_topic_v2" "results" {
  name         = "${var.name}-results"
  display_name = "Stop requests that were handled"
}

resource "opentelekomcloud_smn_subscription_v2" "failures" {
  count = var.alert_email == null ? 0 : 1

  topic_urn = opentelekomcloud_smn_topic_v2.failures.topic_urn
  protocol  = "email"
  endpoint  = var.alert_email
  remark    = "events that ${var.name} could not handle"
}

# Timer and SMN always call asynchronously. All tries lie within AUTOSTOP_MAX_EVENT_AGE (15 minutes), after which an
# event would be refused. Neither topic is the one that starts the function, so there is no loop. Runs that
# succeed are notified as well, each with its result: subscribe to that topic if you want them.
resource "opentelekomcloud_fgs_async_invoke_config_v2" "stop" {
  function_urn                   = opentelekomcloud_fgs_function_v2.stop.urn
  max_async_retry_attempts       = 3
  max_async_event_age_in_seconds = 900

  on_failure {
    destination = "SMN"
    param       = jsonencode({ topic_urn = opentelekomcloud_smn_topic_v2.failures.topic_urn })
  }

  on_success {
    destination = "SMN"
    param       = jsonencode({ topic_urn = opentelekomcloud_smn_topic_v2.results.topic_urn })
  }
}
