"""What `make demo` and `make demo-chat` show: the real functions on a simulated cloud."""
