terraform {
  required_version = ">= 1.5"

  required_providers {
    opentelekomcloud = {
      source = "opentelekomcloud/opentelekomcloud"
      # From this version on custom images, agencies in request headers and dependencies behave as this folder expects.
      version = ">= 1.36.70, < 2.0.0"
    }
  }
}

# The login comes from the usual OS_* variables. It needs the right to make agencies and custom roles.
provider "opentelekomcloud" {
  auth_url    = "https://iam.${var.region}.otc.t-systems.com/v3"
  domain_name = var.domain_name
  tenant_name = var.project_name
}
