"""What models do, how long the answers are, and how fast an H100 was with each model.

The lengths are typical ones, written down here as assumptions; the rates are those of docs/benchmarks.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

ROWS = 64
"""Requests at once, in what was measured on the GPU: a decode step has as many rows."""
MEASURED_TOKENS = 20
"""The length of every answer there."""


@dataclass(frozen=True, slots=True)
class OnGpu:
    """How fast a model was on an H100, greedy, in bfloat16, with weights of the published size.

    Attributes:
        rate: Requests a second with :data:`ROWS` at once and answers of :data:`MEASURED_TOKENS` tokens.
        step_ms: Milliseconds of a decode step of so many rows.
    """

    rate: float
    step_ms: float

    def rate_of(self, tokens: int) -> float:
        """Requests a second with answers of another length: each token more or less is a row of a step."""
        row_s = self.step_ms / 1000 / ROWS
        return 1 / (1 / self.rate + (tokens - MEASURED_TOKENS) * row_s)


ON_GPU: Mapping[str, OnGpu] = {
    "blip-large": OnGpu(236.0, 3.9),
    "florence-2-base": OnGpu(154.0, 3.3),
    "kosmos-2": OnGpu(97.0, 6.7),
    "moondream-2": OnGpu(17.6, 14.5),
}

TASKS: Mapping[str, Mapping[str, int]] = {
    "blip-large": {"caption": 20},
    "florence-2-base": {
        "caption, short": 20, "caption, normal": 50, "caption, long": 100, "detect": 40, "dense_caption": 60,
        "ground": 20, "ocr": 50, "ocr_regions": 120, "region_proposal": 40, "region_caption": 10, "segment": 80,
    },
    "kosmos-2": {"caption, short": 20, "caption, long": 100, "ground": 10, "region_caption": 20, "query": 10},
    "moondream-2": {"caption, short": 20, "caption, normal": 80, "caption, long": 200, "query": 10, "detect": 9,
                    "point": 6},
}  # fmt: skip
"""Tokens of a typical answer of each task: an object takes six or so in Florence-2, and three steps in Moondream."""
