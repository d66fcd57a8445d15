"""Composition roots, one for each target."""
