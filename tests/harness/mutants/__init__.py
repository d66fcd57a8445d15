"""Mutation testing of `handler/stop/`, and the list of those changes that no test needs to notice."""
