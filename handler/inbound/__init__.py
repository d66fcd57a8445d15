"""From an HTTP request to stop requests: authentication, decoding, extraction."""
