"""Images that the documentation shows, and the scripts that make them."""
