"""The models on Ray Serve: thin. Starts engines and passes chunks on; knows nothing of HTTP or of any model."""
