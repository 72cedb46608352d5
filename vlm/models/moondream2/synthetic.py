"""The files beside Moondream 2's weights, made up: the layout and the ids are the hub's, most words are not."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import islice
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers

from vlm.checkpoint.synthesis import made_up_words, write_json
from vlm.models.moondream2.config import settings
from vlm.models.moondream2.vocabulary import MARKS, Ids

_HUB: Mapping[str, Any] = {"model_type": "moondream1", "architectures": ["HfMoondream"], "torch_dtype": "bfloat16"}
_FIRST = len(MARKS) + 256
"""Words begin after the marks and the bytes."""

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
    """Everything but the weights, as in vikhyatk/moondream2, with the tokenizer of moondream/starmie-v1."""
    write_json(
        folder,
        {
            "config.json": config,
            "generation_config.json": {"bos_token_id": 0, "eos_token_id": 0},
            "tokenizer_config.json": {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": MARKS[0]},
        },
    )
    sections = settings(config)
    ids = Ids.of(sections.section("tokenizer"))
    _tokenizer(sections.section("text").integer("vocab_size"), ids).save(str(folder / "tokenizer.json"))


def _tokenizer(size: int, ids: Ids) -> Tokenizer:
    """Marks, every byte, and words, those of the prompts where they belong; no merges, so text becomes single bytes."""
    named = _prompt_words(ids)
    fixed = dict(enumerate((*MARKS, *sorted(pre_tokenizers.ByteLevel.alphabet()))))
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
    tokenizer.add_special_tokens([AddedToken(mark, normalized=False) for mark in MARKS])
    return tokenizer


def _prompt_words(ids: Ids) -> dict[int, str]:
    """What the ids within the prompts say."""
    said: dict[int, str] = {ids.captions[length][3]: length for length in ids.captions}
    said |= {ids.captions["short"][1]: "describe", ids.query[0][1]: "query", ids.point[0][1]: "point"}
    return said | {ids.detect[0][1]: "detect", ids.detect[0][2]: "Ġall"}
