"""Requests that several models have to do with: from the plan to the answer and what it says of itself."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Iterator
from typing import Any, Generic, Protocol

from router.asgi.errors import code_of, encode, error_body
from router.asgi.format import BuiltRequest, EventWriter, ParsedT
from router.asgi.sse import event
from router.composition.agreement import consensus
from router.composition.cascade import until_good
from router.composition.compare import all_at_once
from router.composition.fallback import first_to_answer
from router.composition.pipeline import in_steps
from router.composition.planner import Plan, Planner
from router.composition.routing_report import Report
from router.composition.wanted import Wanted
from vlm.errors import VlmError
from vlm.types import Box, Chunk, Completion, Grounding, Request, Timings, Usage

Json = dict[str, Any]


class Composing(Protocol[ParsedT]):
    """What a format must know of requests that name several models."""

    def wanted(self, parsed: ParsedT) -> Wanted | None:
        """Which models a request is for; None where it is for the one that it names.

        Raises:
            InvalidRequest: Its fields do not go together; with the path of the one at fault.
        """
        ...

    def alone(self, parsed: ParsedT, model: str, report: Report, *, judged: bool = False) -> ParsedT:
        """The same request for one model; its answer tells what is in ``report``.

        Where it is ``judged``, the model gives it at once and with its confidence, whatever the client has asked for.
        """
        ...

    def staged(self, parsed: ParsedT, stage: int, report: Report, part: Box | None) -> ParsedT:
        """A step of a pipeline as a request of its own, about a part of the image or about all of it."""
        ...

    def unasked(self, parsed: ParsedT, model: str, report: Report, request_id: str) -> BuiltRequest:
        """The form of an answer that no model gives."""
        ...


class Conductor(Generic[ParsedT]):
    """See :class:`router.asgi.format.Conductor`."""

    def __init__(self, composing: Composing[ParsedT], planner: Planner) -> None:
        self._composing = composing
        self._planner = planner

    async def composition(
        self, parsed: ParsedT, request_id: str, sees: Callable[[str], bool]
    ) -> Composition[ParsedT] | None:
        """See :class:`router.asgi.format.Conductor`."""
        wanted = self._composing.wanted(parsed)
        if wanted is None:
            return None
        plan = await self._planner.plan(wanted, sees)
        report = Report(
            wanted.requested,
            wanted.mode,
            plan.why,
            wanted.images,
            self._planner.price_list,
            code_of,
            dry_run=wanted.dry_run,
            task=wanted.task,
            batch=wanted.batch,
        )
        for model, reason in plan.passed:
            report.passes(model, reason)
        composition = Composition(self._composing, parsed, plan, report, wanted)
        if wanted.dry_run:
            for model in plan.models:
                report.would_ask(model)
            composition.saw(self._composing.unasked(parsed, plan.models[0], report, request_id))
        return composition


class Composition(Generic[ParsedT]):
    """See :class:`router.asgi.format.Composition`."""

    def __init__(
        self, composing: Composing[ParsedT], parsed: ParsedT, plan: Plan, report: Report, wanted: Wanted
    ) -> None:
        """Nothing has been asked."""
        self._composing = composing
        self._parsed = parsed
        self._plan = plan
        self._report = report
        self._wanted = wanted
        self.shown = Shown(report, stream=wanted.stream)

    def chunks(
        self, ask: Callable[[ParsedT], AsyncGenerator[Chunk, None]], deadline: float
    ) -> AsyncGenerator[Chunk, None]:
        """See :class:`router.asgi.format.Composition`."""
        models, report = self._plan.models, self._report

        def ask_one(model: str, *, judged: bool = False) -> AsyncGenerator[Chunk, None]:
            return ask(self._composing.alone(self._parsed, model, report, judged=judged))

        def ask_step(stage: int, part: Box | None) -> AsyncGenerator[Chunk, None]:
            return ask(self._composing.staged(self._parsed, stage, report, part))

        if self._wanted.dry_run:
            return said(report, self._wanted)
        if self._wanted.mode == "pipeline":
            return in_steps(self._wanted.stages, ask_step, report, deadline)
        if self._wanted.mode == "consensus":
            task, votes = self._wanted.task, self._wanted.min_votes
            return consensus(models, self._plan.weights, ask_one, report, task, deadline=deadline, min_votes=votes)
        if self._wanted.mode == "compare":
            return all_at_once(models, ask_one, report, self._wanted.task, deadline)
        if self._wanted.mode == "cascade":
            return until_good(models, self._plan.thresholds, ask_one, report, deadline)
        return first_to_answer(models, ask_one, report, deadline)

    def saw(self, built: BuiltRequest) -> None:
        """See :class:`router.asgi.format.Composition`."""
        self.shown.saw(built)


async def said(report: Report, wanted: Wanted) -> AsyncGenerator[Chunk, None]:
    """The answer to a dry run: what would be done, as JSON."""
    text = encode(report.json()["routing"]).decode()
    grounding = Grounding(wanted.task or "", "", text, None, raw=text)
    yield Chunk.whole(Completion(text, (), (), grounding, "stop", Usage(0, 0, 0), Timings(0, 0, 0, 0), "default"))


class Shown:
    """The form of an answer whose model is known only once it answers: see :class:`~router.asgi.format.BuiltRequest`.

    It is that of the request to the chosen model; of several, that of the first for which there was one.
    """

    def __init__(self, report: Report, *, stream: bool) -> None:
        self._report = report
        self._stream = stream
        self._built: dict[str, BuiltRequest] = {}

    def saw(self, built: BuiltRequest) -> None:
        """The request to one of the models."""
        self._built.setdefault(built.model, built)

    @property
    def known(self) -> BuiltRequest | None:
        """The request whose form it is, as far as is known."""
        chosen = self._built.get(self._report.chosen or "")
        return chosen or next(iter(self._built.values()), None)

    @property
    def model(self) -> str:
        """Whose answer it is; of several models what was done with them; as long as nobody's, what was asked for."""
        return self._report.chosen or (self._report.mode if self._report.is_joint else self._report.requested)

    @property
    def request(self) -> Request:
        """See :class:`~router.asgi.format.BuiltRequest`."""
        return self._of().request

    @property
    def stream(self) -> bool:
        """See :class:`~router.asgi.format.BuiltRequest`."""
        return self._stream

    def response_json(self, completion: Completion) -> Json:
        """See :class:`~router.asgi.format.BuiltRequest`."""
        return self._of().response_json(completion)

    def event_writer(self) -> EventWriter:
        """See :class:`~router.asgi.format.BuiltRequest`."""
        return _LateWriter(self)

    def located(self, error: VlmError) -> VlmError:
        """As it is: each model's own request has done it."""
        return error

    def _of(self) -> BuiltRequest:
        assert self.known is not None, "no answer comes before a request was made"
        return self.known


class _LateWriter:
    """A writer that begins with the first chunk, when it is known whose answer it is."""

    def __init__(self, shown: Shown) -> None:
        self._shown = shown
        self._writer: EventWriter | None = None

    def opening(self) -> bytes:
        """Nothing yet."""
        return b""

    def events(self, chunk: Chunk) -> Iterator[bytes]:
        """The events of one chunk, after what opens the stream."""
        writer = self._writer
        if writer is None:
            known = self._shown.known
            assert known is not None, "no answer comes before a request was made"
            writer = self._writer = known.event_writer()
            yield writer.opening()
        yield from writer.events(chunk)

    def failure(self, error: VlmError) -> bytes:
        """See :class:`~router.asgi.format.EventWriter`."""
        if self._writer is not None:
            return self._writer.failure(error)
        known = self._shown.known
        return event(error_body(error)) if known is None else known.event_writer().failure(error)
