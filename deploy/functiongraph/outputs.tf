output "function_urn" {
  description = "URN of the function, to call it and to find it in the console"
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
