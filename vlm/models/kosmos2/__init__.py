"""Kosmos-2: captions, answers and phrases whose words are linked to boxes (Peng et al. 2023, arXiv:2306.14824)."""
