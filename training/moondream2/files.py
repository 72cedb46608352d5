"""The files of the Moondream 2 miniature except its weights: a byte-level vocabulary and config.json.

Images of every size are encoded as one crop: tiles would make training five times as expensive.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

from training.data import sentences
from training.data.world import HELD_OUT, scene
from training.vision.recipe import HEADS, HIDDEN, LAYERS, PATCH, SIDE, WIDTH
from vlm.models.moondream2.vocabulary import MARKS

BINS = 256
"""Number of bins of a coordinate, and of a width or height."""

_CORPUS_SEEDS = range(HELD_OUT - 2000, HELD_OUT)
_PROMPT_WORDS = ("describe", "query", "detect", " all", "point", " short", " normal", " long")


def write_files(folder: Path) -> Mapping[str, Any]:
    """Write all files except the weights, in the layout of the Hugging Face hub; returns the content of config.json."""
    tokenizer = _tokenizer()
    tokenizer.save(str(folder / "tokenizer.json"))
    config = configuration(tokenizer)
    files = {
        "config.json": config,
        "generation_config.json": {"bos_token_id": 0, "eos_token_id": 0},
        "tokenizer_config.json": {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": MARKS[0]},
    }
    for name, content in files.items():
        (folder / name).write_text(json.dumps(content, indent=2))
    return config


def configuration(tokenizer: Tokenizer) -> Mapping[str, Any]:
    """A model of 1.3 million parameters."""
    width = 128
    sections = {
        "text": {
            "dim": width, "ff_dim": 192, "n_layers": 3, "vocab_size": tokenizer.get_vocab_size(), "max_context": 320,
            "n_heads": 4,
        },
        "vision": {
            "enc_dim": WIDTH, "enc_patch_size": PATCH, "enc_n_layers": LAYERS, "enc_ff_dim": HIDDEN,
            "enc_n_heads": HEADS, "proj_out_dim": width, "crop_size": SIDE, "max_crops": 1, "overlap_margin": 1,
            "proj_inner_dim": 160,
        },
        "region": {
            "dim": width, "coord_feat_dim": 64, "coord_out_dim": BINS, "size_feat_dim": 64, "size_out_dim": 2 * BINS,
            "inner_dim": 128,
        },
        "tokenizer": {"templates": _templates(tokenizer)},
    }  # fmt: skip
    return {"model_type": "moondream1", "architectures": ["HfMoondream"], "torch_dtype": "float16", "config": sections}


def _templates(tokenizer: Tokenizer) -> Mapping[str, Any]:
    def encode(text: str) -> list[int]:
        ids: list[int] = tokenizer.encode(text).ids
        return ids

    lengths = ("short", "normal", "long")
    return {
        "caption": {length: [1, *encode("describe"), 2, *encode(f" {length}"), 3] for length in lengths},
        "query": {"prefix": [1, *encode("query"), 2], "suffix": [3]},
        "detect": {"prefix": [1, *encode("detect all"), 2], "suffix": [3]},
        "point": {"prefix": [1, *encode("point"), 2], "suffix": [3]},
    }


@cache
def _tokenizer() -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    special = [AddedToken(token, normalized=False, special=True) for token in MARKS]
    trainer = trainers.BpeTrainer(
        vocab_size=640, special_tokens=special, min_frequency=40,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()), show_progress=False,
    )  # fmt: skip
    tokenizer.train_from_iterator(_corpus(), trainer)
    return tokenizer


def _corpus() -> Iterator[str]:
    """The sentences of the world without its words in capitals, so that capital letters never merge."""
    rng = random.Random(0)
    for seed in _CORPUS_SEEDS:
        one = scene(seed)
        texts = [sentences.plain(sentences.caption(one)), sentences.detailed(one), sentences.paragraph(one)]
        texts += [text for question in sentences.questions(one, rng) for text in (question.text, question.answer)]
        for text in texts:
            yield " ".join(word for word in text.split(" ") if not word.isupper())
        yield from _PROMPT_WORDS if rng.random() < 0.1 else ()
