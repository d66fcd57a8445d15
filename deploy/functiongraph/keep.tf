# The function keep_servers, if var.keep_image is set: a container with an agency of its own, which may write the metadata of
# servers and cannot stop them. Its requests come through API Gateway, which is not made here, with a bearer token.

locals {
  keep_settings = {
    FUNCTION_TARGET       = "keep_servers"
    PORT                  = "8000"
    AUTOSTOP_INBOUND_AUTH = "bearer"
    AUTOSTOP_DRY_RUN      = tostring(var.dry_run)
    AUTOSTOP_DEADLINE     = "50s"
    OS_AUTH_URL           = "https://iam.${var.region}.otc.t-systems.com/v3"
    OS_REGION_NAME        = var.region
  }
}

resource "opentelekomcloud_identity_role_v3" "keep" {
  count = var.keep_image == null ? 0 : 1

  display_name  = "${var.name}-keep"
  display_layer = "project"
  description   = "Read bare metal servers and write their metadata"

  statement {
    effect = "Allow"
    action = local.actions["keep"]
  }
}

resource "opentelekomcloud_identity_agency_v3" "keep" {
  count = var.keep_image == null ? 0 : 1

  name                  = "${var.name}-keep"
  description           = "Lets FunctionGraph write the metadata of servers in one project"
  delegated_domain_name = "op_svc_cff"

  project_role {
    project = var.project_name
    roles   = [opentelekomcloud_identity_role_v3.keep[0].display_name, "SWR Administrator"]
  }

  depends_on = [opentelekomcloud_identity_role_v3.keep]
}

resource "opentelekomcloud_fgs_function_v2" "keep" {
  count = var.keep_image == null ? 0 : 1

  name      = "${var.name}-keep"
  app       = "default"
  runtime   = "Custom Image"
  handler   = "-"
  code_type = "Custom-Image-Swr"

  custom_image {
    url = var.keep_image
  }

  timeout     = 90
  memory_size = 256
  # Two processes can undo each other's keep of one server.
  max_instance_num      = "1"
  concurrency_num       = 8
  agency                = opentelekomcloud_identity_agency_v3.keep[0].name
  user_data             = jsonencode(local.keep_settings)
  encrypted_user_data   = jsonencode({ AUTOSTOP_BEARER_TOKENS = var.keep_tokens })
  enable_auth_in_header = true

  log_group_id   = opentelekomcloud_lts_group_v2.function.id
  log_group_name = opentelekomcloud_lts_group_v2.function.group_name
  log_topic_id   = opentelekomcloud_lts_stream_v2.function.id
  log_topic_name = opentelekomcloud_lts_stream_v2.function.stream_name

  lifecycle {
    precondition {
      condition     = try(length(var.keep_tokens) >= 16, false)
      error_message = "Set keep_tokens: bearer tokens of at least 16 characters."
    }
  }
}
