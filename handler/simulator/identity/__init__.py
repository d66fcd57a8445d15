"""Keystone v3, and access keys."""
