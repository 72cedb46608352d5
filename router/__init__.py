"""The HTTP entry: OpenAI-compatible requests in, text and grounding out. Never imports torch."""
