"""The result event, its sinks, chat messages and the log."""
