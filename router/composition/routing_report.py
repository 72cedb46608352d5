"""What became of a request that several models had to do with: who was asked, what each said, took and cost.

One object for a request, which is filled as its models answer, and read when the answer is written. Knows no format and
no HTTP.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from accounts.money import Nano, number_of
from accounts.prices import PriceList
from router.charges import cost_of
from router.composition.wanted import Mode
from vlm.errors import VlmError
from vlm.types import Completion, Usage

Json = dict[str, Any]
Status = Literal["asked", "answered", "failed", "not_asked", "would_ask"]

_CONFIDENCE_DECIMALS = 4


@dataclass(slots=True)
class Call:
    """One model's part.

    Attributes:
        model: Canonical name.
        status: Whether it was asked, and has answered.
        reason: Why it failed, or was not asked: a code of the HTTP contract.
        error: Its error, for a model that failed.
        usage: What it read and wrote; None until it has answered.
        latency_ms: From asking it to the end of its answer, or to its error.
        cost: What it costs; None where its price is not known. An error costs nothing. Of a dry run, what it would cost
            at most, without the tokens that are written.
        began: Whether anything of its answer has come.
        calls: How often it was asked: once for each object in a step of a pipeline.
        failed_calls: How many of these gave no answer.
        confidence, min_confidence: Of its answer, and how much was wanted; None where that is not known or not judged.
    """

    model: str
    status: Status = "asked"
    reason: str | None = None
    error: VlmError | None = None
    usage: Usage | None = None
    latency_ms: float | None = None
    cost: Nano | None = None
    began: bool = False
    calls: int = 1
    failed_calls: int = 0
    confidence: float | None = None
    min_confidence: float | None = None

    def routing_json(self, *, judged: bool = False) -> Json:
        """It as an entry of ``routing.tried``; ``judged`` where answers are held against a confidence."""
        confidences = {"confidence": _share(self.confidence), "min_confidence": _share(self.min_confidence)}
        return {
            "model": self.model,
            "status": self.status,
            "reason": self.reason,
            "latency_ms": _rounded(self.latency_ms),
            "cost_usd": _dollars(self.cost),
            "calls": self.calls,
            "failed_calls": self.failed_calls,
            **(confidences if judged else {}),
        }

    def result_json(self, code_of: Callable[[VlmError], str]) -> Json:
        """It as an entry of ``results``: what one of several models that were compared has to show."""
        error = None if self.error is None else {"code": code_of(self.error), "message": self.error.message}
        return {
            "model": self.model,
            "latency_ms": _rounded(self.latency_ms),
            "usage": None if self.usage is None else _usage_json(self.usage),
            "cost_usd": _dollars(self.cost),
            "error": error,
        }


@dataclass(slots=True)
class Report:
    """What is known of a request so far.

    Attributes:
        requested: The name under ``model``.
        mode: What is done with the models.
        why: Why they are asked in this order, in words.
        images: Number of images, by which an answer is paid.
        price_list: What answers cost.
        code_of: The code of an error, as clients see it.
        calls: One for each model that was asked, in that order.
        dry_run: Whether nothing was asked.
        task: Canonical name of the task; None where each model finds it.
        batch: Whether others go first.
        taken: The model whose answer was taken, where that is not the last one that was asked.
    """

    requested: str
    mode: Mode
    why: str
    images: int
    price_list: PriceList
    code_of: Callable[[VlmError], str]
    calls: list[Call] = field(default_factory=list)
    dry_run: bool = False
    task: str | None = None
    batch: bool = False
    taken: str | None = None

    def asks(self, model: str) -> Call:
        """The model is asked now."""
        self.calls.append(call := Call(model))
        return call

    def would_ask(self, model: str) -> None:
        """The model would be asked, if this were not a dry run."""
        self.calls.append(Call(model, "would_ask", cost=self.estimate(model)))

    def passes(self, model: str, reason: str) -> None:
        """The model is not asked, for this reason."""
        self.calls.append(Call(model, "not_asked", reason))

    def answered(self, call: Call, completion: Completion, latency_ms: float) -> None:
        """The model has answered in full."""
        call.status, call.usage, call.latency_ms = "answered", completion.usage, latency_ms
        call.cost = self.cost_of(call.model, completion)

    def pays(self, call: Call, completion: Completion) -> None:
        """One of the calls of a step of a pipeline has been answered."""
        amount = self.cost_of(call.model, completion, images=1)
        call.cost = None if amount is None else (call.cost or 0) + amount

    def ended(self, call: Call, failures: Sequence[VlmError], calls: int, latency_ms: float) -> None:
        """All calls of a step of a pipeline have ended; those that failed with ``failures``."""
        call.calls, call.failed_calls, call.latency_ms = calls, len(failures), latency_ms
        call.status = "failed" if failures and len(failures) == calls else "answered"
        call.reason = self.code_of(failures[0]) if failures else None
        if call.cost is None and self._has_price(call.model):
            call.cost = 0

    def failed(self, call: Call, error: VlmError, latency_ms: float) -> None:
        """The model has not answered; the first error of a call is the one that counts."""
        if call.status == "failed":
            return
        call.status, call.error, call.latency_ms = "failed", error, latency_ms
        call.reason = self.code_of(error)
        call.cost, call.failed_calls = 0, 1

    def cost_of(self, model: str, completion: Completion, images: int | None = None) -> Nano | None:
        """What an answer of the model costs; None where its price is not known."""
        number = self.images if images is None else images
        return cost_of(self.price_list, model, number, completion, batch=self.batch)

    def estimate(self, model: str) -> Nano | None:
        """What the model would cost at most, without the tokens that it writes."""
        if not self._has_price(model):
            return None
        tasks = () if self.task is None else (self.task,)
        return self.price_list.at_most(model, self.images, tasks, batch=self.batch)

    def _has_price(self, model: str) -> bool:
        return model in self.price_list.models

    @property
    def several(self) -> bool:
        """Whether the answer is of several models."""
        return self.mode == "compare" and not self.dry_run

    @property
    def is_joint(self) -> bool:
        """Whether the answer is not that of one model."""
        return self.mode in ("compare", "consensus", "pipeline") and not self.dry_run

    @property
    def answering(self) -> list[Call]:
        """The calls that were made, in the order of the models."""
        return [call for call in self.calls if call.status != "not_asked"]

    @property
    def choices(self) -> tuple[str, ...]:
        """The models of the choices, in their order, where the answer is of several."""
        return tuple(call.model for call in self.answering) if self.several else ()

    @property
    def chosen(self) -> str | None:
        """The model whose answer it is; None for several, and where there is none."""
        if self.is_joint:
            return None
        if self.taken is not None:
            return self.taken
        asked = [call.model for call in self.answering]
        return None if not asked else asked[0] if self.dry_run else asked[-1]

    @property
    def cost(self) -> Nano | None:
        """What all calls cost together; None where the price of one is not known.

        Of a dry run, what the answer would cost if the first models are able to give it.
        """
        costs = [call.cost for call in self.calls if call.status not in ("not_asked", "asked")]
        costs = costs[:1] if self.dry_run and self.mode in ("fallback", "auto") else costs
        known = [cost for cost in costs if cost is not None]
        return sum(known) if len(known) == len(costs) else None

    def json(self) -> Json:
        """Our own keys of the answer: ``routing``, and for compared models ``results``."""
        routing = {
            "requested": self.requested,
            "mode": self.mode,
            "chosen": self.chosen,
            "why": self.why,
            "tried": [call.routing_json(judged=self.mode == "cascade") for call in self.calls],
            "cost_usd": _dollars(self.cost),
            "dry_run": self.dry_run,
        }
        if self.mode not in ("compare", "consensus") or self.dry_run:
            return {"routing": routing}
        return {"routing": routing, "results": [call.result_json(self.code_of) for call in self.answering]}


def _dollars(cost: Nano | None) -> float | None:
    return None if cost is None else number_of(cost)


def _share(confidence: float | None) -> float | None:
    return None if confidence is None else round(confidence, _CONFIDENCE_DECIMALS)


def _rounded(latency_ms: float | None) -> float | None:
    return None if latency_ms is None else round(latency_ms, 3)


def _usage_json(usage: Usage) -> Json:
    read = usage.image_tokens + usage.text_tokens
    return {
        "prompt_tokens": read,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": read + usage.completion_tokens,
    }
