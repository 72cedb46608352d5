"""Writes the files beside Moondream 2's weights: layout and ids as published, most words made up."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import islice
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers

from vlm.checkpoint.synthesis import made_up_words, write_json
from vlm.models.moondream2.revisions import read_config
from vlm.models.moondream2.vocabulary import SPECIAL_TOKENS, Ids

_HUB: Mapping[str, Any] = {"model_type": "moondream1", "architectures": ["HfMoondream"], "torch_dtype": "bfloat16"}
_FIRST = len(SPECIAL_TOKENS) + 256
"""Id of the first word: after the special tokens and the bytes."""

SIZES: Mapping[str, Mapping[str, Any]] = {
    "tiny": {
        **_HUB,
        "config": {
            "text": {"dim": 32, "ff_dim": 64, "n_layers": 2, "vocab_size": 320, "max_context": 256, "n_heads": 2},
            "vision": {
                "enc_dim": 24, "enc_patch_size": 7, "enc_n_layers": 2, "enc_ff_dim": 40, "enc_n_heads": 2,
                "proj_out_dim": 32, "crop_size": 28, "max_crops": 12, "overlap_margin": 1, "proj_inner_dim": 48,
            },
            "region": {
                "dim": 32, "coord_feat_dim": 16, "coord_out_dim": 64, "size_feat_dim": 32, "size_out_dim": 128,
                "inner_dim": 40,
            },
            "tokenizer": {
                "templates": {
                    "caption": {
                        "short": [1, _FIRST, 2, _FIRST + 1, 3],
                        "normal": [1, _FIRST, 2, _FIRST + 2, 3],
                        "long": [1, _FIRST, 2, _FIRST + 3, 3],
                    },
                    "query": {"prefix": [1, _FIRST + 4, 2], "suffix": [3]},
                    "detect": {"prefix": [1, _FIRST + 5, _FIRST + 6, 2], "suffix": [3]},
                    "point": {"prefix": [1, _FIRST + 7, 2], "suffix": [3]},
                },
            },
        },
    },
    "real": {**_HUB, "config": {}},
}  # fmt: skip


def write_files(folder: Path, config: Mapping[str, Any]) -> None:
    """Write all files but the weights, laid out as vikhyatk/moondream2, with a tokenizer as moondream/starmie-v1."""
    write_json(
        folder,
        {
            "config.json": config,
            "generation_config.json": {"bos_token_id": 0, "eos_token_id": 0},
            "tokenizer_config.json": {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": SPECIAL_TOKENS[0]},
        },
    )
    sections = read_config(config)
    ids = Ids.of(sections.section("tokenizer"))
    _tokenizer(sections.section("text").integer("vocab_size"), ids).save(str(folder / "tokenizer.json"))


def _tokenizer(size: int, ids: Ids) -> Tokenizer:
    """Special tokens, every byte, and words, those of the prompts at their ids; without merges, text becomes bytes."""
    named = _prompt_words(ids)
    fixed = dict(enumerate((*SPECIAL_TOKENS, *sorted(pre_tokenizers.ByteLevel.alphabet()))))
    words = islice((word for word in made_up_words() if word not in named.values()), size)
    vocabulary = {fixed.get(token) or named.get(token) or next(words): token for token in range(size)}
    tokenizer = Tokenizer(models.BPE(vocabulary, []))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(r"\n+|\d{1,3}"), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(token, normalized=False) for token in SPECIAL_TOKENS])
    return tokenizer


def _prompt_words(ids: Ids) -> dict[int, str]:
    """The words of the ids in the prompts."""
    words: dict[int, str] = {ids.captions[length][3]: length for length in ids.captions}
    words |= {ids.captions["short"][1]: "describe", ids.query[0][1]: "query", ids.point[0][1]: "point"}
    return words | {ids.detect[0][1]: "detect", ids.detect[0][2]: "Ġall"}
