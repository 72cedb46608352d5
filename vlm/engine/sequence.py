"""One request's life in the engine: what it has read and written, and what it holds. Pure Python."""

from __future__ import annotations

import random
import time
from dataclasses import dataclass, field

from vlm.engine.beams import BeamSearch
from vlm.engine.detokenizer import Detokenizer
from vlm.models.processor import Inputs
from vlm.types import FinishReason, Sampling


@dataclass(frozen=True, slots=True)
class TextDelta:
    """What has become certain of an answer: of its text, and of the thought before it."""

    text: str = ""
    reasoning: str = ""

    def __add__(self, later: TextDelta) -> TextDelta:
        """This piece, then a later one."""
        return TextDelta(self.text + later.text, self.reasoning + later.reasoning)

    def __bool__(self) -> bool:
        """Whether anything is said."""
        return bool(self.text or self.reasoning)


@dataclass(eq=False, slots=True)
class Sequence:
    """A request that was prepared and accepted.

    Attributes:
        inputs: From the processor.
        sampling: Fully resolved: every optional field has its value.
        text: Its growing text.
        image_key: Hash of its image's original bytes; None where it is not to be shared.
        image_cached: Whether its image had been encoded before; None until it first runs.
        prefix: Positions that its image takes before the prompt, see ``models.base.CacheSpec``.
        stream: Whether its client wants the text as it grows.
        prepare_ms: How long the processor took.
        threshold: Objects of its answer whose score is below it are left out; None keeps all.
        reasoning: What it thinks before its text, as it grows; None where it does not think or nobody listens.
        generated, logprobs: What it has written; beam search decides it at its end.
        reported: How many of ``generated`` its chunks have carried.
        slot: Its place among the running, or None while it waits.
        beams: Its rows of the batch while it runs: one, or as many as it has beams.
        search: Where its beam search stands, or None without one.
        speaks: Whether its next tokens are the answer's text already; a model may think before it answers.
        held: Blocks that it held when it was preempted last.
        generator: Draws its uniform numbers, so that its answer does not depend on its neighbours.
    """

    inputs: Inputs
    sampling: Sampling
    text: Detokenizer
    image_key: bytes | None = None
    stream: bool = True
    prefix: int = 0
    prepare_ms: float = 0.0
    threshold: float | None = None
    reasoning: Detokenizer | None = None
    generated: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    reported: int = 0
    slot: int | None = None
    beams: list[Beam] = field(default_factory=list)
    search: BeamSearch | None = None
    finish_reason: FinishReason | None = None
    preemptions: int = 0
    held: int = 0
    image_cached: bool | None = None
    arrived: float = field(default_factory=time.perf_counter)
    started: float | None = None
    first_token: float | None = None
    in_answer: bool = field(init=False)
    generator: random.Random = field(init=False)

    def __post_init__(self) -> None:
        self.in_answer = self.inputs.reasoning_end_id is None
        seed = self.sampling.seed  # as text: the number's sign would be lost
        self.generator = random.Random(None if seed is None else str(seed))  # noqa: S311  sampling tokens, not secrets

    @property
    def num_beams(self) -> int:
        """Rows of the batch that it takes."""
        return self.sampling.num_beams or 1

    @property
    def length(self) -> int:
        """Positions when it joins the running: a preempted one computes what it has written again."""
        return self.prefix + len(self.inputs.prompt_ids) + len(self.generated)

    @property
    def wants_logprobs(self) -> bool:
        """Whether its tokens' log-probabilities are asked for, or needed for scores."""
        return self.sampling.logprobs or self.inputs.scored

    @property
    def reasoning_tokens(self) -> int:
        """How many of ``generated`` come before its text, the mark between them included."""
        after = self.inputs.reasoning_end_id
        if after is None:
            return 0
        return self.generated.index(after) + 1 if after in self.generated else len(self.generated)

    def append(self, token: int) -> TextDelta:
        """Add a token; returns what is now certain."""
        if self.in_answer:
            return TextDelta(self.text.push(token)) if self.inputs.has_text else TextDelta()
        self.in_answer = token == self.inputs.reasoning_end_id
        if self.reasoning is None:
            return TextDelta()
        return TextDelta(reasoning=self.reasoning.finish() if self.in_answer else self.reasoning.push(token))

    def finish(self) -> TextDelta:
        """No more tokens: returns the rest, an unfinished character as U+FFFD."""
        reasoning = "" if self.reasoning is None or self.in_answer else self.reasoning.finish()
        return TextDelta(self.text.finish() if self.inputs.has_text else "", reasoning)

    def enter(self) -> None:
        """Join the running: a beam a beam, all at the same point."""
        if self.num_beams == 1:
            self.beams = [Beam(self, self.generated, self.logprobs)]
        else:
            self.search = BeamSearch.of(self.sampling)
            self.beams = [Beam(self, [], []) for _ in range(self.num_beams)]

    def leave(self) -> None:
        """Finished, or back to the waiting. A beam search starts anew: nobody has seen anything of it yet."""
        self.slot, self.beams, self.search = None, [], None


@dataclass(eq=False, slots=True)
class Beam:
    """One row of the batch: an answer in the making.

    Attributes:
        sequence: Whose it is.
        generated, logprobs: What it has written; beams of one search differ in it.
        blocks: The KV cache blocks that it holds, in order; it may share them with others.
        row: Its row in the last step, which is where the device keeps what belongs to it.
    """

    sequence: Sequence
    generated: list[int]
    logprobs: list[float]
    blocks: list[int] = field(default_factory=list)
    row: int = 0

    @property
    def inputs(self) -> Inputs:
        """Its sequence's."""
        return self.sequence.inputs

    @property
    def known(self) -> int:
        """Ids read and written, without a prefix."""
        return len(self.sequence.inputs.prompt_ids) + len(self.generated)

    @property
    def length(self) -> int:
        """Positions, the last chosen token included: it is read in the next step."""
        return self.sequence.prefix + self.known

    @property
    def budget(self) -> int:
        """Tokens that may still be generated."""
        max_tokens = self.sequence.sampling.max_tokens
        assert max_tokens is not None
        return max_tokens - len(self.generated)

    def forced_token(self) -> int | None:
        """The token that must come next, whatever the model says, or None."""
        sampling = self.sequence.sampling
        if self.budget == 1 and sampling.forced_last_token is not None:
            return sampling.forced_last_token
        forced = sampling.forced_tokens or ()
        return forced[len(self.generated)] if len(self.generated) < len(forced) else None
