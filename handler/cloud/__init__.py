"""The cloud: login, the APIs, and the mapping of errors."""
