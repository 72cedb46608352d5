"""The document that describes this API to programs: OpenAPI 3.1, made of the models that check the bodies."""
