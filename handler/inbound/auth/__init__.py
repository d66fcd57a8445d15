"""Authentication of callers: bearer tokens and OpenID Connect."""
