"""The heart: read, decide, stop, confirm."""
