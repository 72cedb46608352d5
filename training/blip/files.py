"""The files of the BLIP miniature except its weights: WordPiece vocabulary, configuration, image processor."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from transformers import BertTokenizer, BlipConfig, BlipImageProcessor, BlipProcessor, GenerationConfig

from training.data import sentences
from training.data.normalisation import CLIP_MEAN, CLIP_STD
from training.data.trigrams import split
from training.data.world import HELD_OUT, scene
from training.vision.recipe import HEADS, HIDDEN, LAYERS, PATCH, SIDE, WIDTH

PREFIXES = ("a picture of", "a photography of", "an image of", "a photo of")
"""Beginnings that a caption can be given."""

_SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
_CORPUS_SEEDS = range(HELD_OUT - 2000, HELD_OUT)


def write_tokenizer(folder: Path) -> BertTokenizer:
    """Write the tokenizer and the image processor in the layout of the Hugging Face hub."""
    vocabulary = _vocabulary()
    tokenizer = BertTokenizer(vocab=vocabulary, do_lower_case=True, model_max_length=512)
    images = BlipImageProcessor(
        size={"height": SIDE, "width": SIDE}, image_mean=list(CLIP_MEAN), image_std=list(CLIP_STD)
    )
    BlipProcessor(image_processor=images, tokenizer=tokenizer).save_pretrained(folder)
    (folder / "vocab.txt").write_text("\n".join(vocabulary) + "\n")
    return tokenizer


def configuration(words: int) -> BlipConfig:
    """A model of one million parameters. As in the published model, captions begin with a special id."""
    text = {
        "vocab_size": words + 2, "hidden_size": 128, "encoder_hidden_size": WIDTH, "intermediate_size": 256,
        "num_hidden_layers": 2, "num_attention_heads": 4, "max_position_embeddings": 64, "bos_token_id": words,
        "eos_token_id": 2, "pad_token_id": 0, "sep_token_id": 3, "projection_dim": 128, "hidden_act": "gelu",
        "layer_norm_eps": 1e-12,
    }  # fmt: skip
    vision = {
        "hidden_size": WIDTH, "intermediate_size": HIDDEN, "num_hidden_layers": LAYERS, "num_attention_heads": HEADS,
        "image_size": SIDE, "patch_size": PATCH, "layer_norm_eps": 1e-5, "hidden_act": "gelu",
    }  # fmt: skip
    return BlipConfig(text_config=text, vision_config=vision, projection_dim=64, image_text_hidden_size=32)


def generation(words: int) -> GenerationConfig:
    """As published: the end id is not used, captions end with ``[SEP]``."""
    return GenerationConfig(bos_token_id=words, eos_token_id=2, pad_token_id=0)


@cache
def _vocabulary() -> dict[str, int]:
    words = {word for prefix in PREFIXES for word in prefix.split()}
    for seed in _CORPUS_SEEDS:
        text = sentences.plain(sentences.caption(scene(seed)))
        words |= {word for word in split(text) if word.islower()}  # words in capitals are spelled by letters
    signs = [chr(code) for code in range(33, 127) if not chr(code).isupper()]
    pieces = [*signs, *(f"##{sign}" for sign in signs if sign.isalnum()), *sorted(words - set(signs))]
    return {piece: number for number, piece in enumerate((*_SPECIAL, *pieces))}
