"""One endpoint for each target: a request in, a response out."""
