"""Keep servers from being stopped for a while: a pure decision, and the runner of one server."""
