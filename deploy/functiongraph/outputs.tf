output "function_urn" {
  description = "What to call, and what to look for in the console"
  value       = opentelekomcloud_fgs_function_v2.stop.urn
}

output "requests_topic_urn" {
  description = "Publish a stop request here, or let an alarm of Cloud Eye notify it"
  value       = opentelekomcloud_smn_topic_v2.requests.topic_urn
}
