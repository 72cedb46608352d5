"""One request's life in the engine: what it has read and written, and what it holds. Pure Python."""

from __future__ import annotations

import random
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from vlm.engine.detokenizer import Detokenizer
from vlm.types import FinishReason, Sampling

if TYPE_CHECKING:
    from vlm.models.base import Inputs  # which imports torch


@dataclass(eq=False, slots=True)
class Sequence:
    """A request that was prepared and accepted.

    Attributes:
        inputs: From the processor.
        sampling: Fully resolved: every optional field has its value.
        text: Its growing text.
        image_key: Hash of its picture's original bytes; None where it is not to be shared.
        image_cached: Whether its picture had been encoded before; None until it first runs.
        pieces: Whether its client wants the text as it grows.
        prepare_ms: How long the processor took.
        generated, logprobs: What it has written so far.
        reported: How many of ``generated`` its chunks have carried.
        row: Its row in the running batch, or None while it waits.
        blocks: The KV cache blocks that it holds, in order.
        generator: Draws its uniform numbers, so that its answer does not depend on its neighbours.
    """

    inputs: Inputs
    sampling: Sampling
    text: Detokenizer
    image_key: bytes | None = None
    pieces: bool = True
    prepare_ms: float = 0.0
    generated: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    reported: int = 0
    row: int | None = None
    blocks: list[int] = field(default_factory=list)
    finish_reason: FinishReason | None = None
    preemptions: int = 0
    image_cached: bool | None = None
    arrived: float = field(default_factory=time.perf_counter)
    started: float | None = None
    first_token: float | None = None
    generator: random.Random = field(init=False)

    def __post_init__(self) -> None:
        seed = self.sampling.seed  # as text: the number's sign would be lost
        self.generator = random.Random(None if seed is None else str(seed))  # noqa: S311  sampling tokens, not secrets

    @property
    def length(self) -> int:
        """Positions, the last chosen token included: it is read in the next step."""
        return len(self.inputs.prompt_ids) + len(self.generated)

    @property
    def budget(self) -> int:
        """Tokens that may still be generated."""
        assert self.sampling.max_tokens is not None
        return self.sampling.max_tokens - len(self.generated)

    @property
    def wants_logprobs(self) -> bool:
        """Whether its tokens' log-probabilities are asked for, or needed for scores."""
        return self.sampling.logprobs or self.inputs.scored

    def forced_token(self) -> int | None:
        """The token that must come next, whatever the model says, or None."""
        if self.budget == 1 and self.sampling.forced_last_token is not None:
            return self.sampling.forced_last_token
        forced = self.sampling.forced_tokens or ()
        return forced[len(self.generated)] if len(self.generated) < len(forced) else None
