"""Talk with programs that were not written here; `make interop` runs this, and `make test` replays what they sent."""
