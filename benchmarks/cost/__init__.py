"""What 1,000 images cost, from rates that were measured and prices of machines that are stated."""
