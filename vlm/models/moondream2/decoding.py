"""One decode step of a batch whose rows are at different stages: tokens are sampled, locations are the likeliest bins.

Which ids are ruled out at which stage, and which id a row gets, from logits that are handed in. Follows
``moondream.py`` in the repository of vikhyatk/moondream2.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from vlm.layers.upload import upload
from vlm.models.moondream2.locations import LocationIds
from vlm.models.moondream2.stages import REASONING_STAGES, Stage
from vlm.models.moondream2.vocabulary import Ids


@dataclass(frozen=True, slots=True)
class Chosen:
    """The id of each row, int64 ``[batch]``, and its log-probability float32 ``[batch]``, or None if not asked for."""

    ids: Tensor
    logprobs: Tensor | None

    def where(self, rows: Tensor, ids: Tensor, logprobs: Tensor) -> Chosen:
        """The same with other ids in the ``rows`` (bool ``[batch]``)."""
        changed = None if self.logprobs is None else torch.where(rows, logprobs, self.logprobs)
        return Chosen(torch.where(rows, ids, self.ids), changed)


@dataclass(frozen=True, slots=True)
class LikeliestBins:
    """The likeliest bins and their log-probabilities, both of the shape of the logits without the last axis."""

    bins: Tensor
    logprobs: Tensor

    @classmethod
    def of(cls, logits: Tensor) -> LikeliestBins:
        """From float32 logits ``[..., bins]``."""
        logprobs, bins = torch.log_softmax(logits, dim=-1).max(dim=-1)
        return cls(bins, logprobs)


@dataclass(frozen=True, slots=True)
class StagedBatch:
    """The rows of one decode step by their stages.

    Attributes:
        stages: The stage of each row, on the host.
        codes: The same on the device, int64 ``[batch]``.
        locations: Which ids are which bins.
        ids: The special tokens.
    """

    stages: tuple[Stage, ...]
    codes: Tensor
    locations: LocationIds
    ids: Ids

    @classmethod
    def of(cls, stages: Sequence[Stage], locations: LocationIds, ids: Ids, device: torch.device) -> StagedBatch:
        """Copy the stages to the device."""
        return cls(tuple(stages), upload([int(one) for one in stages], device), locations, ids)

    def any(self, *stages: Stage) -> bool:
        """Whether a row is at one of these stages; does not wait for the device."""
        return not set(stages).isdisjoint(self.stages)

    def at(self, *stages: Stage) -> Tensor:
        """bool ``[batch]``: the rows that are at one of these stages."""
        return torch.stack([self.codes == int(one) for one in stages]).any(dim=0)

    def rule_out(self, logits: Tensor) -> None:
        """Set the ids that a stage never chooses to -inf, in place; ``logits`` are float32 ``[batch, vocabulary]``.

        As in the original, the first token of an answer or of reasoning may be any, with one exception: reasoning that
        begins with the end of text goes on in the original, but would here end before there is an answer.
        """
        if self.any(Stage.ANSWER):
            logits[:, self.ids.answer].masked_fill_(self.at(Stage.ANSWER), -torch.inf)
        if self.any(*REASONING_STAGES):
            logits[:, self.ids.eos].masked_fill_(self.at(*REASONING_STAGES), -torch.inf)
            logits[:, self.ids.size].masked_fill_(self.at(Stage.REASONING), -torch.inf)

    def has_next_object(self, logits: Tensor) -> tuple[Tensor, Tensor]:
        """Whether there is another object, bool ``[batch]``, and the log-probability of that, float32 ``[batch]``.

        There is one unless the end is the likeliest token; which other token is likeliest makes no difference.
        """
        end = torch.log_softmax(logits, dim=-1)[:, self.ids.eos]
        more = logits.argmax(dim=-1) != self.ids.eos
        return more, torch.where(more, torch.log1p(-end.exp()), end)

    def with_end_of_reasoning(self, chosen: Chosen) -> Chosen:
        """The answer token in rows whose reasoning has reached its limit: it is forced, so its probability is 1."""
        answer = torch.full_like(chosen.ids, self.ids.answer)
        return chosen.where(self.at(Stage.END_REASONING), answer, torch.zeros(answer.shape, device=answer.device))

    def with_coordinates(self, chosen: Chosen, coordinate: LikeliestBins) -> Chosen:
        """Coordinates, in rows that chose the coordinate token while reasoning and in rows whose step is a y."""
        ids = self.locations.vocabulary + coordinate.bins
        both = coordinate.logprobs if chosen.logprobs is None else chosen.logprobs + coordinate.logprobs
        in_reasoning = self.at(*REASONING_STAGES) & (chosen.ids == self.ids.coordinate)
        return chosen.where(in_reasoning, ids, both).where(self.at(Stage.Y), ids, coordinate.logprobs)

    def with_next_object(self, chosen: Chosen, has_next: tuple[Tensor, Tensor], coordinate: LikeliestBins) -> Chosen:
        """The x of another object, or the end, in rows that look for one."""
        more, logprobs = has_next
        ids = torch.where(more, self.locations.vocabulary + coordinate.bins, self.ids.eos)
        return chosen.where(
            self.at(Stage.NEXT_OBJECT), ids, torch.where(more, logprobs + coordinate.logprobs, logprobs)
        )

    def with_sizes(self, chosen: Chosen, pair: LikeliestBins) -> Chosen:
        """Sizes in rows whose step is one; ``pair`` is ``[batch, 2]``: widths and heights."""
        ids = self.locations.sizes + pair.bins[:, 0] * self.locations.size_bins + pair.bins[:, 1]
        return chosen.where(self.at(Stage.SIZE), ids, pair.logprobs.sum(dim=-1))
