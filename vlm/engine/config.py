"""How much an engine may use, and what it holds at one moment."""

from __future__ import annotations

from dataclasses import dataclass

from vlm.errors import InvalidRequest


@dataclass(frozen=True, slots=True)
class EngineConfig:
    """How much the engine may use.

    Attributes:
        max_batch: Most sequences that run at once; fewer where ``cache_bytes`` holds fewer. Beams do not count.
        max_waiting: Most requests that wait beyond those; the next one is refused.
        max_prefill: Most sequences that join in one step.
        cache_bytes: Memory for keys and values, cross attention included. A beam search that could outgrow it is cut
            at what it holds.
        encoder_cache_bytes: Memory for what the model saw in images, for the next question about one; 0 is off.
        processor_cache_bytes: Memory for images that are decoded and resized, likewise.
        prepare_threads: Threads that decode and resize images.
    """

    max_batch: int = 64
    max_waiting: int = 256
    max_prefill: int = 8
    cache_bytes: int = 2 * 1024**3
    encoder_cache_bytes: int = 256 * 1024**2
    processor_cache_bytes: int = 64 * 1024**2
    prepare_threads: int = 4

    def __post_init__(self) -> None:
        least = {"max_waiting": 0, "encoder_cache_bytes": 0, "processor_cache_bytes": 0, "max_batch": 1,
                 "max_prefill": 1, "cache_bytes": 1, "prepare_threads": 1}  # fmt: skip
        for name, value in least.items():
            if getattr(self, name) < value:
                raise InvalidRequest(f"{name} must be at least {value}.", param=name)


@dataclass(frozen=True, slots=True)
class EngineStats:
    """What the engine holds at one moment. ``accepted`` counts requests from the door to their end.

    ``cached_blocks`` hold images that nobody asks about now; they are given up as soon as ``used_blocks`` grow.

    ``images_encoded`` and ``image_hits`` count since the start: images that the vision encoder saw, and those that
    it had seen before.
    """

    accepted: int
    running: int
    waiting: int
    used_blocks: int
    cached_blocks: int
    total_blocks: int
    max_batch: int
    images_encoded: int
    image_hits: int
