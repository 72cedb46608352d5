"""Where answers come from: engines in this process, or one Ray Serve application per model."""
