"""Programs that measure and attack; `make test` does not run them."""
