"""The core: read, decide, stop, confirm."""
