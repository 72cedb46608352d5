"""Florence-2: DaViT and BART; every task, detection too, is answered as text (Xiao et al. 2023, arXiv:2311.06242)."""
