"""Kosmos-2: captions, answers and phrases that are tied to places in the image (microsoft/kosmos-2-patch14-224)."""
