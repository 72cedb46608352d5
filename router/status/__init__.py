"""What ``GET /v1/status`` says. Knows no format of requests, and not where answers come from."""
