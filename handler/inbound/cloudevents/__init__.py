"""CloudEvents: strict decoding, and reading of our own result events."""
