"""The cloud: login, the APIs, and its faults as our exceptions."""
