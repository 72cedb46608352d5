"""``POST /v1/{caption,query,detect,point,segment}``: the API of Moondream's cloud, for Moondream's own clients."""
