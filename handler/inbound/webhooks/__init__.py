"""Producers without CloudEvents, one file each: verify, gate, extract."""
