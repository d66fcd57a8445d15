"""BMS API v1 of Open Telekom Cloud."""
