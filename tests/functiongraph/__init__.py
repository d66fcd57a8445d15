"""Functiongraph."""
