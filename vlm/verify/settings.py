"""Checks that config.json describes a model that can be built, and that the small files fit it. Knows no model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from vlm.checkpoint.files import Checkpoint
from vlm.loading import build_processor
from vlm.models.checks import Finding, some
from vlm.models.family import Family


def check_config(checkpoint: Checkpoint, name: str, family: Family) -> Iterator[Finding]:
    """Check that the model can be built; list its dimensions and how its settings differ from the published ones."""
    yield Finding("model type", "ok", f"{checkpoint.model_type}, served by {name}")
    model = family.empty(checkpoint.config)
    cache = model.cache
    yield Finding(
        "dimensions",
        "ok",
        f"{cache.layers} decoder layers, {cache.kv_heads} heads of {cache.head_dim}, vocabulary {model.vocabulary:,}, "
        f"{cache.max_positions:,} positions, {sum(part.numel() for _, part in model.named_parameters()):,} parameters",
    )
    yield from _settings(checkpoint.config, family.sizes["real"])


def check_processor(checkpoint: Checkpoint, name: str, family: Family) -> Iterator[Finding]:
    """Check that the small files beside config.json are there and fit it."""
    build_processor(name, family, checkpoint)
    yield Finding("processor", "ok", "image settings and tokenizer fit the config")


def check_tokenizer(checkpoint: Checkpoint, name: str, family: Family) -> Iterator[Finding]:
    """Make the family's own checks of its tokenizer. If the processor cannot be built, that is the only failure."""
    build_processor(name, family, checkpoint)
    yield from family.checks(checkpoint)


def _settings(given: Mapping[str, Any], published: Mapping[str, Any]) -> Iterator[Finding]:
    """List what differs from the published config. Nothing of it fails: fine-tunes and other sizes are served too."""
    ours, theirs = _flat(given), _flat(published)
    other = [name for name in sorted(ours.keys() & theirs.keys()) if ours[name] != theirs[name]]
    beyond = sorted(ours.keys() - theirs.keys())
    lines = {
        "settings": (f"{len(other)} unlike those of the published size", other),
        "unknown": (f"{len(beyond)} settings that are not checked here", beyond),
        "contradictory": ("settings that stand twice with different values", _contradictions(ours, theirs)),
    }
    for check, (what, names) in lines.items():
        if names:
            yield Finding(check, "ok", f"{what} ({some(names)})")


def _contradictions(flat: Mapping[str, Any], known: Mapping[str, Any]) -> list[str]:
    """Settings of a section that the whole file repeats with another value, as fine-tunes often do."""
    repeated = ((name, name.rpartition(".")[2]) for name in sorted(flat.keys() & known.keys()) if "." in name)
    return [
        f"{key} {flat[key]}, {name} {flat[name]}"
        for name, key in repeated
        if key != "model_type" and key in flat and flat[key] != flat[name]
    ]


def _flat(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """{"a": {"b": 1}} to {"a.b": 1}."""
    flat: dict[str, Any] = {}
    for key, value in config.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return flat
