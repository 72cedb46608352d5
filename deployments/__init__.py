"""The models on Ray Serve: starts an engine for each replica and passes its chunks on."""
