"""The files of the Kosmos-2 miniature except its weights: unigram vocabulary, configuration, image processor.

Every word of the world's sentences is a piece, and so is every letter: words in capitals are spelled by letters.
"""

from __future__ import annotations

import random
import string
from functools import cache
from pathlib import Path

from transformers import CLIPImageProcessorPil, GenerationConfig, Kosmos2Config, Kosmos2Processor, XLMRobertaTokenizer

from training.data.trigrams import split
from training.data.world import HELD_OUT, scene
from training.kosmos2.tasks import all_examples
from training.vision.recipe import HEADS, HIDDEN, LAYERS, PATCH, SIDE, WIDTH

LATENTS = 64
"""Latent queries per image: a constant in transformers' ``Kosmos2Processor``."""

_SPACE = "▁"
_CORPUS_SEEDS = range(HELD_OUT - 2000, HELD_OUT)


def write_tokenizer(folder: Path) -> XLMRobertaTokenizer:
    """Write the tokenizer and the image processor in the layout of the Hugging Face hub."""
    tokenizer = XLMRobertaTokenizer(vocab=_pieces(), model_max_length=2048)
    square = {"height": SIDE, "width": SIDE}
    images = CLIPImageProcessorPil(size=square, crop_size=square, do_center_crop=True)
    Kosmos2Processor(images, tokenizer).save_pretrained(folder)
    return tokenizer


def configuration(words: int) -> Kosmos2Config:
    """A model of 1.2 million parameters."""
    text = {
        "vocab_size": words, "embed_dim": 128, "layers": 3, "ffn_dim": 256, "attention_heads": 4,
        "max_position_embeddings": 512, "dropout": 0.0, "attention_dropout": 0.0, "layerdrop": 0.0,
        "no_repeat_ngram_size": 3,
    }  # fmt: skip
    vision = {
        "hidden_size": WIDTH, "intermediate_size": HIDDEN, "num_hidden_layers": LAYERS, "num_attention_heads": HEADS,
        "image_size": SIDE, "patch_size": PATCH,
    }  # fmt: skip
    return Kosmos2Config(text_config=text, vision_config=vision, latent_query_num=LATENTS)


def generation() -> GenerationConfig:
    """As published: no repeated trigram."""
    return GenerationConfig(bos_token_id=0, eos_token_id=2, pad_token_id=1, no_repeat_ngram_size=3)


@cache
def _pieces() -> list[tuple[str, float]]:
    """All pieces with their scores, letters and punctuation marks first.

    Ids 4 to 67 are in every prompt as the positions of the image, in this order, and count for the ban on repeated
    trigrams: no text may have three of them in a row.
    """
    signs = [*string.ascii_uppercase, *string.ascii_lowercase, *string.digits, *".,:;?!'\"-()"]
    special = [(name, 0.0) for name in ("<s>", "<pad>", "</s>", "<unk>")]
    letters = [(sign, -8.0) for sign in _interleaved(signs)]
    words = [(_SPACE + word, -2.0) for word in sorted(_words())]
    return [*special, *letters, (_SPACE, -3.0), *words, ("<mask>", 0.0)]


def _interleaved(signs: list[str]) -> list[str]:
    """Capital letters between the others, so that no word in capitals has three consecutive ids."""
    capitals = set(string.ascii_uppercase)
    others = [sign for sign in signs if sign not in capitals]
    mixed = [sign for pair in zip(string.ascii_uppercase, others, strict=False) for sign in pair]
    return mixed + others[len(capitals) :]


def _words() -> set[str]:
    rng = random.Random(0)
    words: set[str] = set()
    for seed in _CORPUS_SEEDS:
        one = scene(seed)
        spelled = one.word.text if one.word else ""
        for example in all_examples(one, rng):
            text = (
                f"{example.prompt} {example.answer}".replace(spelled, " ")
                if spelled
                else example.prompt + example.answer
            )
            words |= {piece for piece in split(text) if piece[0].isalpha() and (len(piece) > 1 or piece == "a")}
    return words
