"""A request's life in the engine: what it has read and generated, and the blocks, rows and slot it holds. Pure Python.

A running sequence has a slot and one beam, or ``num_beams`` of them; a beam is a row of the step.
"""

from __future__ import annotations

import random
import time
from dataclasses import dataclass, field

from vlm.engine.beams import BeamSearch, Likeliest
from vlm.engine.output import OutputText
from vlm.models.processor import Inputs
from vlm.types import FinishReason, Sampling


@dataclass(eq=False, slots=True)
class Sequence:
    """A request that has been prepared and accepted.

    Attributes:
        inputs: The request as numbers, from the processor.
        sampling: Fully resolved: every field that has a default is set.
        output: The text of its answer.
        image_key: Hash of the image's encoded bytes; None if its features are not to be shared.
        caller: Who asked, as in the request: callers are served in turn.
        stream: Whether the client wants the text as it grows.
        prefix: Number of positions that the image takes before the prompt; see :class:`CacheSpec`.
        prepare_ms: Milliseconds that preparing it took.
        threshold: Detections with a lower score are left out of the answer; None keeps all.
        label: What the client calls the objects that it asks for, or None if it does not say.
        batch: Whether nobody waits for its answer, so that others go before it.
        request_id: Of its request, for lines about a step that failed; "" if it has none.
        generated, logprobs, likeliest: Token ids of the answer, and if wanted their raw log-probabilities and the
            likeliest tokens in their place. A beam search fills them at its end.
        slot: Its index among the running sequences, or None while it waits.
        beams: Its rows of the step while it runs: one, or ``num_beams``; empty while it waits.
        search: The state of its beam search, or None without one.
        finish_reason: Why it ended, or None while it has not.
        preemptions: How often it has been preempted.
        held: Number of blocks that it held when it was last preempted.
        image_cached: Whether its image had been encoded before; None until it first runs.
        encode_ms: Milliseconds that encoding its image took, together with others.
        arrived, started, first_token: Times on the clock of ``time.perf_counter``, in seconds.
        generator: Source of its uniform numbers, so that what it samples does not depend on the rest of the batch.
        takes_likeliest: Whether each of its tokens is the likeliest one, whatever came before.
    """

    inputs: Inputs
    sampling: Sampling
    output: OutputText
    image_key: bytes | None = None
    caller: str | None = None
    stream: bool = True
    prefix: int = 0
    prepare_ms: float = 0.0
    threshold: float | None = None
    label: str | None = None
    batch: bool = False
    request_id: str = ""
    generated: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    likeliest: list[Likeliest] = field(default_factory=list)
    slot: int | None = None
    beams: list[Beam] = field(default_factory=list)
    search: BeamSearch | None = None
    finish_reason: FinishReason | None = None
    preemptions: int = 0
    held: int = 0
    image_cached: bool | None = None
    encode_ms: float = 0.0
    arrived: float = field(default_factory=time.perf_counter)
    started: float | None = None
    first_token: float | None = None
    generator: random.Random = field(init=False)
    takes_likeliest: bool = field(init=False)

    def __post_init__(self) -> None:
        seed = self.sampling.seed  # as text, because random.Random ignores the sign of an int
        self.generator = random.Random(None if seed is None else str(seed))  # noqa: S311  sampling tokens, not secrets
        self.takes_likeliest = self.num_beams == 1 and _takes_likeliest(self.sampling)

    @property
    def num_beams(self) -> int:
        """Number of beams, and so of rows, that it has while it runs."""
        return self.sampling.num_beams or 1

    @property
    def length(self) -> int:
        """Number of positions that are computed when it starts; after a preemption with what it has generated."""
        return self.prefix + len(self.inputs.prompt_ids) + len(self.generated)

    @property
    def wants_logprobs(self) -> bool:
        """Whether its tokens' log-probabilities are asked for, or needed for scores."""
        return self.sampling.logprobs or self.inputs.scored

    @property
    def reasoning_tokens(self) -> int:
        """Number of generated tokens before the answer's text, including the one that separates the two."""
        after = self.inputs.reasoning_end_id
        if after is None:
            return 0
        return self.generated.index(after) + 1 if after in self.generated else len(self.generated)

    def forced_token(self, index: int) -> int | None:
        """The token that is forced at ``index`` of the answer, or None.

        ``forced_tokens`` are at 0, 1, ...; ``forced_last_token`` is at ``max_tokens - 1`` and takes precedence.
        """
        if self.forces_last_token(index):
            return self.sampling.forced_last_token
        forced = self.sampling.forced_tokens or ()
        return forced[index] if index < len(forced) else None

    def forces_last_token(self, index: int) -> bool:
        """Whether ``forced_last_token`` is at ``index`` of the answer."""
        return self.sampling.forced_last_token is not None and index + 1 == self.sampling.max_tokens

    def note_image(self, *, cached: bool) -> bool:
        """Note whether its image had been encoded before; returns False if that was known already.

        Only the first run counts: after a preemption it would find what it encoded itself.
        """
        first = self.image_cached is None
        if first:
            self.image_cached = cached
        return first

    def start_running(self) -> None:
        """Begin to run: all its beams start from the same position."""
        if self.num_beams == 1:
            self.beams = [Beam(self, self.generated, self.logprobs)]
        else:
            self.search = BeamSearch.of(self.sampling)
            self.beams = [Beam(self, [], []) for _ in range(self.num_beams)]

    def stop_running(self) -> None:
        """Cease to run, because it has finished or is preempted.

        A beam search then starts from scratch, which no client notices: it reports nothing before its end.
        """
        self.slot, self.beams, self.search = None, [], None


@dataclass(eq=False, slots=True)
class Beam:
    """One row of a step: an answer that is being generated.

    Attributes:
        sequence: The sequence that it belongs to.
        generated, logprobs, likeliest: As in the sequence; each beam of a search has its own.
        blocks: The KV cache blocks of its positions, in order; it may share them with other beams.
        row: Its row in the last step, which is where the device keeps its state.
    """

    sequence: Sequence
    generated: list[int]
    logprobs: list[float]
    blocks: list[int] = field(default_factory=list)
    row: int = 0
    likeliest: list[Likeliest] = field(default_factory=list)

    @property
    def inputs(self) -> Inputs:
        """The sequence's inputs."""
        return self.sequence.inputs

    @property
    def ids(self) -> list[int]:
        """The token ids read and generated, without a prefix."""
        return [*self.sequence.inputs.prompt_ids, *self.generated]

    @property
    def known(self) -> int:
        """Their number."""
        return len(self.sequence.inputs.prompt_ids) + len(self.generated)

    @property
    def length(self) -> int:
        """Number of positions, including that of the last generated token, which the next step reads."""
        return self.sequence.prefix + self.known

    @property
    def budget(self) -> int:
        """Number of tokens that may still be generated."""
        max_tokens = self.sequence.sampling.max_tokens
        assert max_tokens is not None
        return max_tokens - len(self.generated)

    def forced_token(self) -> int | None:
        """The token that must come next whatever the model chooses, or None."""
        return self.sequence.forced_token(len(self.generated))


def _takes_likeliest(how: Sampling) -> bool:
    changes = (
        how.temperature,
        how.logit_bias,
        how.repetition_penalty not in (None, 1.0),
        how.frequency_penalty,
        how.presence_penalty,
        how.no_repeat_ngram_size,
        how.forced_tokens,
        how.forced_last_token is not None,
    )
    return not any(changes)
