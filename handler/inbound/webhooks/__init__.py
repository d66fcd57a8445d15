"""Producers that speak no CloudEvents, one file each, all alike: verify, gate, extract."""
