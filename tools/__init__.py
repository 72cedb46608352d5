"""What keeps the project's set-up in order. Nothing here is part of the product."""
