"""Makes what is not written by hand in the documentation: the gallery, the images to try, printed outputs."""
