"""One decode step of rows that are each at a stage of its own: words are sampled, places are always the likeliest.

Owns which ids are ruled out when, and which id a hidden state becomes. Knows no module: it is handed the logits.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from vlm.models.moondream2.locations import PlaceIds
from vlm.models.moondream2.stages import THINKING, Stage
from vlm.models.moondream2.vocabulary import Ids


@dataclass(frozen=True, slots=True)
class Written:
    """An id a row, int64 ``[batch]``, and its log-probability float32 ``[batch]``, or None where nobody asked."""

    ids: Tensor
    logprobs: Tensor | None

    def where(self, rows: Tensor, ids: Tensor, logprobs: Tensor) -> Written:
        """With other ids in some rows."""
        known = None if self.logprobs is None else torch.where(rows, logprobs, self.logprobs)
        return Written(torch.where(rows, ids, self.ids), known)


@dataclass(frozen=True, slots=True)
class Likeliest:
    """The likeliest bins, and their log-probabilities: both of the logits' shape without its last axis."""

    bins: Tensor
    logprobs: Tensor

    @classmethod
    def of(cls, logits: Tensor) -> Likeliest:
        """By the last axis."""
        logprobs, bins = torch.log_softmax(logits.float(), dim=-1).max(dim=-1)
        return cls(bins, logprobs)


@dataclass(frozen=True, slots=True)
class Rows:
    """The rows of one step by their stages.

    Attributes:
        stages: One a row, on the host.
        codes: The same on the device, int64 ``[batch]``.
        places: Which id stands for which bins.
        ids: The marks.
    """

    stages: tuple[Stage, ...]
    codes: Tensor
    places: PlaceIds
    ids: Ids

    @classmethod
    def of(cls, stages: Sequence[Stage], places: PlaceIds, ids: Ids, device: torch.device) -> Rows:
        """Move the stages to the device."""
        return cls(tuple(stages), torch.tensor([int(one) for one in stages], device=device), places, ids)

    def any(self, *wanted: Stage) -> bool:
        """Whether a row is at one of these; needs no device."""
        return not set(wanted).isdisjoint(self.stages)

    def at(self, *wanted: Stage) -> Tensor:
        """bool ``[batch]``: rows that are at one of these."""
        return torch.stack([self.codes == int(one) for one in wanted]).any(dim=0)

    def rule_out(self, logits: Tensor) -> None:
        """Set to -inf what a stage never chooses, in place; ``logits`` are float32 ``[batch, vocabulary]``.

        The first token of an answer or a thought is free, as in the original, but for one thing: a thought that began
        with the end would there go on, and here end the answer before it began.
        """
        if self.any(Stage.ANSWER):
            logits[:, self.ids.answer].masked_fill_(self.at(Stage.ANSWER), -torch.inf)
        if self.any(*THINKING):
            logits[:, self.ids.eos].masked_fill_(self.at(*THINKING), -torch.inf)
            logits[:, self.ids.size].masked_fill_(self.at(Stage.THOUGHT), -torch.inf)

    def further(self, logits: Tensor) -> tuple[Tensor, Tensor]:
        """Whether there is a further object, bool ``[batch]``, and how likely that is as log-probability float32.

        There is one if anything but the end is likeliest; which token that is makes no difference.
        """
        end = torch.log_softmax(logits, dim=-1)[:, self.ids.eos]
        more = logits.argmax(dim=-1) != self.ids.eos
        return more, torch.where(more, torch.log1p(-end.exp()), end)

    def enough(self, written: Written) -> Written:
        """The answer mark where the time to think is up; nothing was chosen, so it is certain."""
        mark = torch.full_like(written.ids, self.ids.answer)
        return written.where(self.at(Stage.ENOUGH), mark, torch.zeros(mark.shape, device=mark.device))

    def placed(self, written: Written, spot: Likeliest) -> Written:
        """Coordinates: in place of their mark in a thought, and where a row's step is a y."""
        tokens = self.places.words + spot.bins
        both = spot.logprobs if written.logprobs is None else written.logprobs + spot.logprobs
        meant = self.at(*THINKING) & (written.ids == self.ids.coordinate)
        return written.where(meant, tokens, both).where(self.at(Stage.Y), tokens, spot.logprobs)

    def begun(self, written: Written, further: tuple[Tensor, Tensor], spot: Likeliest) -> Written:
        """The x of a further object, or the end, in rows that look for one."""
        more, chance = further
        tokens = torch.where(more, self.places.words + spot.bins, self.ids.eos)
        return written.where(self.at(Stage.NEXT_OBJECT), tokens, torch.where(more, chance + spot.logprobs, chance))

    def sized(self, written: Written, pair: Likeliest) -> Written:
        """Sizes where a row's step is one; ``pair`` is ``[batch, 2]``: widths and heights."""
        tokens = self.places.sizes + pair.bins[:, 0] * self.places.size_bins + pair.bins[:, 1]
        return written.where(self.at(Stage.SIZE), tokens, pair.logprobs.sum(dim=-1))
