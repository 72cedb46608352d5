"""Traces of requests: ids and spans in plain Python, and the one module that hands them to OpenTelemetry."""
