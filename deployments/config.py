"""The settings of one model's replicas: a frozen object made from the ``args`` of a Serve application.

Owns names, defaults and checks. Knows neither Ray nor torch, so that a config can be checked in a blink; whether a
checkpoint, dtype or device can be used is for the loader to say.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Self

REPOSITORY = Path(__file__).resolve().parents[1]

_KINDS: Mapping[str, tuple[type, str]] = {"str": (str, "text"), "int": (int, "a whole number")}


class ModelArgsError(ValueError):
    """A setting is unknown, missing or of the wrong kind; the message names it."""


@dataclass(frozen=True, slots=True)
class ModelArgs:
    """What one replica loads, and how much it may use.

    Attributes:
        checkpoint: A folder (relative ones are sought in the working directory, then beside this package), or a hub id.
        revision: Commit of the hub repository; not for a folder.
        dtype, device: As :func:`vlm.loading.load` takes them.
        threads: Threads of torch on the CPU; 0 leaves them as they are.
        max_batch, max_waiting, max_prefill, cache_bytes, encoder_cache_bytes, processor_cache_bytes, prepare_threads:
            See :class:`vlm.engine.config.EngineConfig`.
    """

    checkpoint: str
    revision: str | None = None
    dtype: str = "auto"
    device: str = "auto"
    threads: int = 0
    max_batch: int = 64
    max_waiting: int = 256
    max_prefill: int = 8
    cache_bytes: int = 2 * 1024**3
    encoder_cache_bytes: int = 256 * 1024**2
    processor_cache_bytes: int = 64 * 1024**2
    prepare_threads: int = 4

    def __post_init__(self) -> None:
        for field in fields(self):
            _check_kind(field.name, getattr(self, field.name), str(field.type))
        _check(bool(self.checkpoint), "checkpoint", "must not be empty")
        for name in ("max_batch", "max_prefill", "cache_bytes", "prepare_threads"):
            _check(getattr(self, name) >= 1, name, "must be at least 1")
        for name in ("max_waiting", "encoder_cache_bytes", "processor_cache_bytes", "threads"):
            _check(getattr(self, name) >= 0, name, "must not be negative")

    @classmethod
    def from_args(cls, args: Mapping[str, Any]) -> Self:
        """Read the ``args`` of a Serve application, or any mapping that came from YAML.

        Raises:
            ModelArgsError: A key is unknown or missing, or a value impossible.
        """
        known = [field.name for field in fields(cls)]
        for key in args:
            if key not in known:
                raise ModelArgsError(f"Unknown model setting {key!r}; known are: {', '.join(known)}.")
        _check("checkpoint" in args, "checkpoint", "is missing")
        return cls(**args)

    @property
    def source(self) -> str:
        """The checkpoint, as the loader takes it: a worker's working directory need not be the repository."""
        places = (folder / self.checkpoint for folder in (Path.cwd(), REPOSITORY))
        return next((str(place) for place in places if place.is_dir()), self.checkpoint)

    @property
    def places(self) -> int:
        """Most requests that the engine holds at once."""
        return self.max_batch + self.max_waiting


def _check_kind(name: str, value: object, declared: str) -> None:
    if value is None and declared.endswith("| None"):
        return
    kind, words = _KINDS[declared.removesuffix(" | None")]
    _check(isinstance(value, kind) and not isinstance(value, bool), name, f"must be {words}")


def _check(holds: bool, name: str, rule: str) -> None:
    if not holds:
        raise ModelArgsError(f"Model setting {name!r} {rule}.")
