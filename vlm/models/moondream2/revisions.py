"""Sizes, ids and prompts of each published revision of Moondream 2, and what a config.json changes of them.

The published config.json is empty (``"config": {}``), so the defaults here are the real sizes, and the ids and prompts
of :data:`REVISION`. For older weights, ``config`` must name their revision: ``{"revision": "2025-04-14"}``. Source:
``config.py`` and ``moondream.py`` in the repository of vikhyatk/moondream2, at each revision.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vlm.checkpoint.config_reader import ConfigReader
from vlm.errors import CheckpointError

REVISION = "2025-06-21"

_TEMPLATES = {
    "caption": {
        "short": [1, 32708, 2, 12492, 3],
        "normal": [1, 32708, 2, 6382, 3],
        "long": [1, 32708, 2, 4059, 3],
    },
    "query": {"prefix": [1, 15381, 2], "suffix": [3]},
    "detect": {"prefix": [1, 7235, 476, 2], "suffix": [3]},
    "point": {"prefix": [1, 2581, 2], "suffix": [3]},
}

PUBLISHED: Mapping[str, Mapping[str, Any]] = {
    "text": {
        "dim": 2048, "ff_dim": 8192, "n_layers": 24, "vocab_size": 51200, "max_context": 2048, "n_heads": 32,
    },
    "vision": {
        "enc_dim": 1152, "enc_patch_size": 14, "enc_n_layers": 27, "enc_ff_dim": 4304, "enc_n_heads": 16,
        "proj_out_dim": 2048, "crop_size": 378, "in_channels": 3, "max_crops": 12, "overlap_margin": 4,
        "proj_inner_dim": 8192,
    },
    "region": {
        "dim": 2048, "coord_feat_dim": 256, "coord_out_dim": 1024, "size_feat_dim": 512, "size_out_dim": 2048,
        "inner_dim": 8192,
    },
    "tokenizer": {
        "bos_id": 0, "eos_id": 0, "answer_id": 3, "thinking_id": 4, "coord_id": 5, "size_id": 6,
        "start_ground_points_id": 7, "end_ground_id": 9, "templates": _TEMPLATES,
        "can_reason": True, "query_text": "query", "before_question": "", "before_label": " ",
    },
}  # fmt: skip


def _older(spaces: Mapping[str, Any], captions: Mapping[str, list[int]]) -> Mapping[str, Any]:
    """Ids and prompts for CodeGen's tokenizer. It has no tokens for reasoning, so those ids are of unused rows."""
    return {
        "bos_id": 50256, "eos_id": 50256, "answer_id": 51199, "thinking_id": 51198, "coord_id": 51197, "size_id": 51196,
        "start_ground_points_id": 51195, "end_ground_id": 51194, "can_reason": False, "query_text": "Question:",
        **spaces,
        "templates": {
            "caption": {"short": [198, 198, 16438, 8305, 25], "normal": [198, 198, 24334, 1159, 25], **captions},
            "query": {"prefix": [198, 198, 24361, 25], "suffix": [198, 198, 33706, 25]},
            "detect": {"prefix": [198, 198, 47504, 25], "suffix": [628]},
            "point": {"prefix": [198, 198, 12727, 25], "suffix": [628]},
        },
    }  # fmt: skip


_SPACED = _older({"before_question": " ", "before_label": " "}, {"long": [198, 198, 14617, 8305, 25]})
REVISIONS: Mapping[str, Mapping[str, Mapping[str, Any]]] = {
    REVISION: {},
    "2025-04-14": {"tokenizer": _SPACED},
    "2025-03-27": {"tokenizer": _SPACED},
    "2025-01-09": {
        "tokenizer": _older({"before_question": "", "before_label": ""}, {"long": []}),
        "region": {"even_sizes": True},
    },
}
"""How each revision differs from :data:`PUBLISHED`. The network is the same in all."""


def read_config(config: Mapping[str, Any]) -> ConfigReader:
    """The sections ``text``, ``vision``, ``region`` and ``tokenizer``, each complete.

    Args:
        config: The content of config.json.

    Raises:
        CheckpointError: ``config`` or one of its sections is not an object, the revision is unknown, or the weights
            are quantised.
    """
    given = config.get("config") or {}
    if not isinstance(given, Mapping):
        raise CheckpointError("config.json: config must be an object.")
    revision = given.get("revision", REVISION)
    if revision not in REVISIONS:
        raise CheckpointError(
            f"config.json config: revision {revision!r} is not known here; it may be {', '.join(REVISIONS)}."
        )
    sections = {name: {**PUBLISHED[name], **REVISIONS[revision].get(name, {})} for name in PUBLISHED}
    return ConfigReader(
        {name: _merged(sections[name], name, given.get(name, {})) for name in PUBLISHED}, "config.json config"
    )


def grid(vision: ConfigReader) -> int:
    """Number of patches along each side of a crop.

    Raises:
        CheckpointError: The crop is not a whole number of patches, or its margins cover it.
    """
    crop, patch, margin = (vision.integer(key) for key in ("crop_size", "enc_patch_size", "overlap_margin"))
    if crop % patch or crop // patch <= 2 * margin:
        raise CheckpointError(
            f"config.json config vision: a crop_size of {crop} must be a whole number of patches of {patch}, more than "
            f"twice the overlap_margin of {margin}."
        )
    return crop // patch


def _merged(known: Mapping[str, Any], name: str, given: object) -> dict[str, Any]:
    if not isinstance(given, Mapping):
        raise CheckpointError(f"config.json config: {name} must be an object.")
    if given.get("group_size") is not None:
        raise int4_error()
    return {**known, **given}


def int4_error() -> CheckpointError:
    """The error for a quantised checkpoint."""
    return CheckpointError(
        "The checkpoint's weights are packed as int4, which is not supported; use the bfloat16 revision of the model."
    )
