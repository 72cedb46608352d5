"""Steps, each about the objects that the one before has found; their answers stand with the objects.

Pure but for time: it asks through what it is given, and knows no HTTP.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from functools import partial

from router.composition.fallback import just_before, timed
from router.composition.routing_report import Report
from router.composition.wanted import MAX_CROPS, Stage
from vlm.errors import DeadlineExceeded, EngineFailure, Overloaded, VlmError
from vlm.types import Box, Chunk, Completion, Detection, ObjectAnswer, Point, Polygon, Usage

AskStep = Callable[[int, Box | None], AsyncGenerator[Chunk, None]]
"""The answer to a step, by its number, about a part of the image or about all of it."""

AT_ONCE = 8
"""Calls of one request at the same time: as many as a few callers may have without one of them filling a replica."""

FULL_PAUSE_S = 0.25
"""How long a call waits that found no room, before it is made again."""


@dataclass(slots=True)
class _Node:
    """An object, and what is asked about it."""

    found: Detection
    answers: list[tuple[ObjectAnswer, list[_Node]]] = field(default_factory=list)

    def detection(self) -> Detection:
        """The object with its answers, and theirs."""
        told = (replace(answer, detections=tuple(one.detection() for one in inner)) for answer, inner in self.answers)
        return replace(self.found, answers=tuple(told))


async def in_steps(
    stages: Sequence[Stage], ask: AskStep, report: Report, deadline: float
) -> AsyncGenerator[Chunk, None]:
    """The answer of the first of ``stages``, whose objects have the answers of the others, in one chunk.

    Args:
        stages: At least one.
        ask: Asks for one step.
        report: Learns of each step.
        deadline: In seconds on the event loop's clock. What is unanswered a little before it has an error in its place.

    Raises:
        VlmError: The first step has failed.
    """
    began = _now()
    first = await _whole(timed(ask(0, None), report.asks(stages[0].model), report))
    size = first.grounding.image_size
    nodes = [_Node(found) for found in first.grounding.detections]
    level, left, usages = nodes, MAX_CROPS, [first.usage]
    for index, stage in enumerate(stages[1:], 1):
        targets = [node for node in level if node.found.box is not None][: min(stage.limit, left)]
        left -= len(targets)
        step = _Step(index, stage, ask, size or (1, 1), report.code_of)
        usages += await _done(step, targets, report, just_before(deadline))
        level = [inner for node in targets for answer, found in node.answers for inner in found]
    grounding = replace(first.grounding, detections=tuple(node.detection() for node in nodes))
    timings = replace(first.timings, total_ms=1000 * (_now() - began))
    yield Chunk.whole(replace(first, grounding=grounding, usage=Usage.sum(usages), timings=timings))


async def _done(step: _Step, targets: Sequence[_Node], report: Report, end: float) -> list[Usage]:
    """Do a step for each of ``targets``, a few at a time; returns what they took."""
    call, began = report.asks(step.stage.model), _now()
    step = replace(step, told=partial(report.pays, call))
    room = asyncio.Semaphore(AT_ONCE)
    asked = [asyncio.create_task(step.about(node, room, end)) for node in targets]
    try:
        results = await asyncio.gather(*asked)
    finally:
        for one in asked:
            one.cancel()
        await asyncio.gather(*asked, return_exceptions=True)
    failures = [result for result in results if isinstance(result, VlmError)]
    report.ended(call, failures, len(targets), 1000 * (_now() - began))
    return [result for result in results if isinstance(result, Usage)]


@dataclass(frozen=True, slots=True)
class _Step:
    """A step that is done for objects."""

    index: int
    stage: Stage
    ask: AskStep
    size: tuple[int, int]
    code_of: Callable[[VlmError], str]
    told: Callable[[Completion], None] = lambda _: None

    async def about(self, node: _Node, room: asyncio.Semaphore, end: float) -> Usage | VlmError:
        """Ask about one object, and put the answer, or why there is none, with it."""
        box = node.found.box
        assert box is not None, "only objects with a box are asked about"
        part = box if self.stage.takes_region else part_of(box, self.stage.crop or 1.0, self.size)
        answer = ObjectAnswer(self.stage.model, self.stage.task)
        try:
            async with asyncio.timeout_at(end), room:
                completion = await self._answered(part)
        except TimeoutError:
            error: VlmError = DeadlineExceeded("There was no time left to ask about this object.")
        except VlmError as failed:
            error = failed
        else:
            found = completion.grounding.detections
            inner = found if self.stage.takes_region else tuple(in_whole(one, part) for one in found)
            text = completion.text if completion.has_text else None
            node.answers.append((replace(answer, text=text), [_Node(one) for one in inner]))
            self.told(completion)
            return completion.usage
        node.answers.append((replace(answer, error=(self.code_of(error), error.message)), []))
        return error

    async def _answered(self, part: Box) -> Completion:
        while True:
            try:
                return await _whole(self.ask(self.index, part))
            except Overloaded:  # its own calls may be what there is no room for
                await asyncio.sleep(FULL_PAUSE_S)


async def _whole(chunks: AsyncGenerator[Chunk, None]) -> Completion:
    async with aclosing(chunks):
        async for chunk in chunks:
            if chunk.completion is not None:
                return chunk.completion
    raise EngineFailure("The model gave no answer.")


# Geometry


def part_of(box: Box, times: float, size: tuple[int, int]) -> Box:
    """The part of an image of ``size`` that is ``times`` as wide and high as ``box``, in whole pixels.

    So the place of what is found in it is exact, however the part is rounded where it is cut out.
    """
    x, y = (box.x_min + box.x_max) / 2, (box.y_min + box.y_max) / 2
    half_width, half_height = times * (box.x_max - box.x_min) / 2, times * (box.y_max - box.y_min) / 2
    corners = (Point(x - half_width, y - half_height), Point(x + half_width, y + half_height))
    left, top, right, bottom = Box.spanning(corners).pixels(size)
    width, height = size
    return Box(left / width, top / height, right / width, bottom / height)


def in_whole(found: Detection, part: Box) -> Detection:
    """An object that was found in a part of an image, in the frame of the whole."""
    return replace(
        found,
        box=None if found.box is None else _placed_box(found.box, part),
        point=None if found.point is None else _placed(found.point, part),
        quad=None if found.quad is None else _placed_all(found.quad, part),
        polygons=None if found.polygons is None else tuple(_placed_all(one, part) for one in found.polygons),
    )


def _placed(point: Point, part: Box) -> Point:
    x = part.x_min + point.x * (part.x_max - part.x_min)
    return Point.clamped(x, part.y_min + point.y * (part.y_max - part.y_min))


def _placed_all(points: Polygon, part: Box) -> Polygon:
    return tuple(_placed(point, part) for point in points)


def _placed_box(box: Box, part: Box) -> Box:
    return Box.spanning(_placed_all((Point(box.x_min, box.y_min), Point(box.x_max, box.y_max)), part))


def _now() -> float:
    return asyncio.get_running_loop().time()
