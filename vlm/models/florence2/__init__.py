"""Florence-2: a DaViT and a BART that answers every task as text (Xiao et al. 2023, arXiv:2311.06242)."""
