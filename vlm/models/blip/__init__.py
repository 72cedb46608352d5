"""BLIP image captioning: a ViT and a BERT decoder that cross-attends to it (Li et al. 2022, arXiv:2201.12086)."""
