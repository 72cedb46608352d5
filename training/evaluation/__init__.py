"""How well a miniature sees: what it is asked, by which way, and what counts as right."""
