"""A vision transformer that has learnt to see the world's shapes: where three of the miniatures begin."""
