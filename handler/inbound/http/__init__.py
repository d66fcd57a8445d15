"""HTTP requests and responses, the WSGI layer and the shutdown."""
