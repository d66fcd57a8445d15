"""The result event, where it goes, and what the log says."""
