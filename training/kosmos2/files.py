"""The files of the Kosmos-2 miniature beside its weights: a unigram vocabulary, configuration, image processor.

Every word of the world is a piece, and every capital letter, so that a word that no one has seen is spelled.
"""

from __future__ import annotations

import random
import string
from functools import cache
from pathlib import Path

from transformers import CLIPImageProcessorPil, GenerationConfig, Kosmos2Config, Kosmos2Processor, XLMRobertaTokenizer

from training.data.trigrams import split
from training.data.world import HELD_OUT, scene
from training.kosmos2.tasks import exercises
from training.vision.recipe import CELLS, HEADS, HIDDEN, LAYERS, PATCH, SIDE, WIDTH

LATENTS = 64
"""transformers' processor has this number in its code."""

_SPACE = "▁"
_CORPUS_SEEDS = range(HELD_OUT - 2000, HELD_OUT)


def write_tokenizer(folder: Path) -> XLMRobertaTokenizer:
    """Write the tokenizer and the image processor in the layout of the hub."""
    tokenizer = XLMRobertaTokenizer(vocab=_pieces(), model_max_length=2048)
    square = {"height": SIDE, "width": SIDE}
    images = CLIPImageProcessorPil(size=square, crop_size=square, do_center_crop=True)
    Kosmos2Processor(images, tokenizer).save_pretrained(folder)
    return tokenizer


def configuration(words: int) -> Kosmos2Config:
    """The sizes of the miniature: 1.2 M parameters."""
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
    """As on the hub: no run of three tokens twice."""
    return GenerationConfig(bos_token_id=0, eos_token_id=2, pad_token_id=1, no_repeat_ngram_size=3)


@cache
def _pieces() -> list[tuple[str, float]]:
    """Letters and signs first: ids 4 to 67 stand in every prompt as the image's places, in this order, and no text
    may repeat a run of three of them."""
    signs = [*string.ascii_uppercase, *string.ascii_lowercase, *string.digits, *".,:;?!'\"-()"]
    special = [(name, 0.0) for name in ("<s>", "<pad>", "</s>", "<unk>")]
    letters = [(sign, -8.0) for sign in _scattered(signs)]
    words = [(_SPACE + word, -2.0) for word in sorted(_words())]
    return [*special, *letters, (_SPACE, -3.0), *words, ("<mask>", 0.0)]


def _scattered(signs: list[str]) -> list[str]:
    """In an order in which no spelled word is likely to have a run."""
    capitals = set(string.ascii_uppercase)
    others = [sign for sign in signs if sign not in capitals]
    mixed = [sign for pair in zip(string.ascii_uppercase, others, strict=False) for sign in pair]
    return mixed + others[len(capitals) :]


def _words() -> set[str]:
    rng = random.Random(0)
    found: set[str] = set()
    for seed in _CORPUS_SEEDS:
        one = scene(seed)
        spelled = one.word.text if one.word else ""
        for exercise in exercises(one, rng):
            text = (
                f"{exercise.prompt} {exercise.answer}".replace(spelled, " ")
                if spelled
                else exercise.prompt + exercise.answer
            )
            found |= {piece for piece in split(text) if piece[0].isalpha() and (len(piece) > 1 or piece == "a")}
    return found


def grid_side() -> int:
    """Cells a side of the vision encoder."""
    return CELLS
