"""``POST /v1/responses``, OpenAI's Responses format, without storage: the same as chat, in another spelling."""
