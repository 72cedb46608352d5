"""The synthetic world of shapes and words that the miniatures are trained on."""
