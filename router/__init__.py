"""The HTTP entry: OpenAI-compatible requests in, text and places out. Never imports torch."""
