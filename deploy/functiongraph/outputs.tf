output "function_urn" {
  description = "What to call, and what to look for in the console"
  value       = opentelekomcloud_fgs_function_v2.stop.urn
}

output "results_topic_urn" {
  description = "Subscribe here to get the result of every run"
  value       = opentelekomcloud_smn_topic_v2.results.topic_urn
}

output "requests_topic_urn" {
  description = "Publish a stop request here, or let an alarm of Cloud Eye notify it"
  value       = opentelekomcloud_smn_topic_v2.requests.topic_urn
}
