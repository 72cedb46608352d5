"""Several tasks and several labels: taken apart, asked at the same time, put together; first with a fake engine."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vlm.engine.compose import complete, merge
from vlm.errors import EngineFailure, InvalidImage, InvalidRequest, Overloaded, UnsupportedTask, VlmError
from vlm.generations import MAX_GENERATIONS, check_generations, generations, is_compound, split
from vlm.grounding_json import to_json
from vlm.types import MAX_TASKS, Box, Completion, Detection, Grounding, Request, Sampling, Task, Timings, Usage

CAPTION, DETECT = Task("caption"), Task("detect")
LABELLED = Task("detect", labels=("dog", "cat", "dog"))


def completion(text: str = "", *found: Detection, **more: Any) -> Completion:
    """An answer of words, or of geometry where it has no text."""
    return Completion(
        text=text,
        token_ids=(5, 2),
        logprobs=(-0.5, -0.25),
        grounding=Grounding("detect", "<OD>", text or None, (64, 48), found, raw=f"{text}</s>"),
        finish_reason="stop",
        usage=Usage(image_tokens=10, text_tokens=3, completion_tokens=2, cached_tokens=10),
        timings=Timings(1.0, 2.0, 3.0, 4.0),
        resolution="task",
        has_text=bool(text),
        **more,
    )


def a_box(label: str | None = None, *spans: tuple[int, int]) -> Detection:
    return Detection("box", label=label, box=Box(0, 0, 1, 1), spans=spans)


class Fake:
    """Answers what it is asked by the task's name and label; some of them with an error, some never."""

    def __init__(self, **errors: VlmError | None) -> None:
        self.errors = errors
        self.asked: list[Request] = []
        self.running = 0

    async def __call__(self, request: Request) -> Completion:
        assert request.task is not None
        self.asked.append(request)
        self.running += 1
        try:
            await asyncio.sleep(0.001)
            what = "".join(request.task.labels) or request.task.name
            if what in self.errors:
                await self._fail(self.errors[what])
            return completion(what) if request.task.name == "caption" else completion("", a_box())
        finally:
            await asyncio.sleep(0)  # it takes a moment to be freed
            self.running -= 1

    async def _fail(self, error: VlmError | None) -> None:
        if error is None:
            await asyncio.sleep(60)
        else:
            raise error


def ask(request: Request, fake: Fake) -> Completion:
    return asyncio.run(complete(request, fake))


@pytest.mark.parametrize(
    ("request_", "expected"),
    [
        (Request(b""), False),
        (Request(b"", task=CAPTION), False),
        (Request(b"", task=Task("detect", labels=("dog", "dog"))), False),
        (Request(b"", task=Task("caption", labels=("dog", "cat"))), False),
        (Request(b"", task=LABELLED), True),
        (Request(b"", task=Task("point", labels=("dog", "cat"))), True),
        (Request(b"", tasks=(CAPTION,)), True),
    ],
)
def test_what_is_compound(request_: Request, expected: bool) -> None:
    assert is_compound(request_) == expected
    assert (split(request_) == (request_,)) == (not expected)
    assert (generations(request_) > 1) == (expected and len(request_.tasks) != 1)


def test_single_requests_keep_all_but_the_task() -> None:
    request = Request(b"png", "What?", sampling=Sampling(max_tokens=5, seed=1), tasks=(CAPTION, LABELLED))
    fake = Fake()
    ask(request, fake)
    assert {(one.image, one.prompt, one.sampling, one.tasks) for one in fake.asked} == {
        (b"png", "What?", request.sampling, ())
    }
    assert [one.task for one in fake.asked] == [
        CAPTION,
        Task("detect", labels=("dog",)),
        Task("detect", labels=("cat",)),
    ]


def test_parts_stay_apart_beside_the_first_text_and_the_first_grounding() -> None:
    whole = ask(Request(b"", tasks=(DETECT, CAPTION, Task("caption", labels=("other",)), LABELLED)), Fake())
    assert (whole.text, whole.has_text) == ("caption", True)
    assert whole.grounding == whole.parts[0].grounding
    assert [part.text for part in whole.parts] == ["", "caption", "other", ""]
    assert [one.label for one in whole.parts[3].grounding.detections] == ["dog", "cat"]
    assert whole.usage == Usage(image_tokens=10, text_tokens=15, completion_tokens=10, cached_tokens=10)
    assert len(whole.token_ids) == len(whole.logprobs) == whole.usage.completion_tokens


def test_labels_become_one_answer_without_parts() -> None:
    whole = ask(Request(b"", task=LABELLED), Fake())
    assert (whole.parts, whole.has_text, whole.text) == ((), False, "")
    assert [one.label for one in whole.grounding.detections] == ["dog", "cat"]
    assert (whole.grounding.native_task, whole.grounding.raw) == ("<OD>", "</s>\n</s>")


def test_objects_below_the_threshold_are_summed_for_labels_and_stay_apart_for_tasks() -> None:
    answers = [replace(one, grounding=replace(one.grounding, below_threshold=count))
               for one, count in ((completion("", a_box()), 2), (completion(""), 3))]  # fmt: skip
    assert merge(Request(b"", task=LABELLED), answers).grounding.below_threshold == 5
    whole = merge(Request(b"", tasks=(DETECT, DETECT)), answers)
    assert [part.grounding.below_threshold for part in whole.parts] == [2, 3]


def test_an_answer_that_waited_for_the_encode_was_no_hit() -> None:
    answers = [completion(), completion()]
    answers[1] = replace(answers[1], usage=replace(answers[1].usage, cached_tokens=0), finish_reason="length")
    whole = merge(Request(b"", tasks=(DETECT, DETECT)), answers)
    assert (whole.usage.cached_tokens, whole.finish_reason) == (0, "length")


def test_what_no_part_used_is_ignored_and_what_is_a_parts_own_has_its_name() -> None:
    answers = [
        completion("a", ignored=("prompt", "stop", "task.labels")),
        completion("", ignored=("prompt",)),
        completion("", ignored=("prompt", "stop", "task.text")),
    ]
    whole = merge(Request(b"", "hi", tasks=(CAPTION, DETECT, DETECT)), answers)
    assert whole.ignored == ("prompt", "tasks[0].labels", "tasks[2].text")
    pair = merge(Request(b"", task=Task("detect", labels=("a", "b"))), answers[1:])
    assert pair.ignored == ("prompt",)


texts = st.none() | st.text(max_size=6)


@st.composite
def answers_to_a_label(draw: st.DrawFn) -> Completion:
    text = draw(texts)
    size = len(text or "")
    spans = st.tuples(st.integers(0, size), st.integers(0, size)).map(lambda pair: (min(pair), max(pair)))
    found = st.builds(lambda label, marks: a_box(label, *marks), texts, st.lists(spans, max_size=2))
    tokens = tuple(draw(st.lists(st.integers(0, 99), max_size=4)))
    return replace(
        completion(),
        token_ids=tokens,
        logprobs=(),
        grounding=Grounding(
            "detect", draw(st.sampled_from(["<A>", "<B>"])), text, (64, 48),
            tuple(draw(st.lists(found, max_size=3))), draw(st.booleans()), draw(st.text(max_size=4)),
        ),
        finish_reason=draw(st.sampled_from(["stop", "length"])),
        usage=Usage(10, draw(st.integers(0, 9)), len(tokens), draw(st.sampled_from([0, 10]))),
        timings=Timings(*(draw(st.floats(0, 9)) for _ in range(4))),
    )  # fmt: skip


@given(st.lists(answers_to_a_label(), min_size=2, max_size=5))
def test_merged_labels_keep_each_answer(answers: list[Completion]) -> None:
    labels = tuple(f"label {index}" for index in range(len(answers)))
    whole = merge(Request(b"", task=Task("detect", labels=labels)), answers)
    found = [(label, one, answer) for label, answer in zip(labels, answers, strict=True)
             for one in answer.grounding.detections]  # fmt: skip
    assert [one["id"] for one in to_json(whole.grounding)["objects"]] == list(range(len(found)))
    for here, (label, there, single) in zip(whole.grounding.detections, found, strict=True):
        assert here.label == label
        assert replace(here, label=None, spans=()) == replace(there, label=None, spans=())
        words, own = whole.grounding.text or "", single.grounding.text or ""
        assert [words[slice(*span)] for span in here.spans] == [own[slice(*span)] for span in there.spans]
    assert whole.grounding.truncated == any(one.grounding.truncated for one in answers)
    assert whole.grounding.raw.split("\n") == "\n".join(one.grounding.raw for one in answers).split("\n")
    assert_sums(whole, answers)


@given(st.lists(answers_to_a_label(), min_size=1, max_size=5))
def test_merged_parts_are_unchanged(answers: list[Completion]) -> None:
    whole = merge(Request(b"", tasks=(DETECT,) * len(answers)), answers)
    assert whole.parts == tuple(answers)
    assert whole.grounding == answers[0].grounding
    assert_sums(whole, answers)


def assert_sums(whole: Completion, answers: list[Completion]) -> None:
    assert whole.usage.image_tokens == 10
    assert whole.usage.text_tokens == sum(one.usage.text_tokens for one in answers)
    assert whole.usage.completion_tokens == len(whole.token_ids)
    assert whole.token_ids == sum((one.token_ids for one in answers), ())
    assert (whole.finish_reason == "length") == any(one.finish_reason == "length" for one in answers)
    assert whole.timings.total_ms == max(one.timings.total_ms for one in answers)


@pytest.mark.parametrize(
    ("error", "param"),
    [
        (UnsupportedTask("No.", "task", "unsupported_task"), "tasks[1]"),
        (InvalidRequest("No.", "task.region.box", "invalid_value"), "tasks[1].region.box"),
        (InvalidRequest("No.", "prompt"), "prompt"),
        (InvalidImage("No.", code="image_parse_error"), None),
        (EngineFailure("No."), None),
        (Overloaded("No.", code="overloaded"), None),
    ],
)
@pytest.mark.parametrize("what", ["detect", "cat"])
def test_a_part_that_fails_ends_the_others(what: str, error: VlmError, param: str | None) -> None:
    parts = (CAPTION, DETECT if what == "detect" else LABELLED, Task("caption", labels=("never",)))
    fake = Fake(**{what: error, "never": None})

    async def alone() -> int:
        with pytest.raises(VlmError) as caught:
            await asyncio.wait_for(complete(Request(b"", tasks=parts), fake), 10)
        assert type(caught.value) is type(error)
        assert (caught.value.message, caught.value.param, caught.value.code) == ("No.", param, error.code)
        return len(asyncio.all_tasks())

    assert asyncio.run(alone()) == 1
    assert fake.running == 0


def test_a_label_that_fails_names_the_task() -> None:
    fake = Fake(cat=InvalidRequest("No.", "task.labels"))
    with pytest.raises(InvalidRequest) as caught:
        ask(Request(b"", task=LABELLED), fake)
    assert (caught.value.param, fake.running) == ("task.labels", 0)


@pytest.mark.parametrize("turns", [0, 1, 2, 5])
def test_a_client_that_leaves_ends_every_part(turns: int) -> None:
    """Also before the parts have begun."""
    fake = Fake(never=None)

    async def leaves() -> int:
        work: Coroutine[Any, Any, Any] = complete(
            Request(b"", tasks=(CAPTION, LABELLED, Task("caption", labels=("never",)))), fake
        )
        task = asyncio.create_task(work)
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asyncio.wait_for(task, 10)
        return len(asyncio.all_tasks())

    assert asyncio.run(leaves()) == 1
    assert fake.running == 0


def test_all_are_asked_at_the_same_time() -> None:
    together = asyncio.Barrier(4)

    async def meet(request: Request) -> Completion:
        await asyncio.wait_for(together.wait(), 5)
        return completion("met")

    asyncio.run(complete(Request(b"", tasks=(CAPTION, DETECT, LABELLED)), meet))


@pytest.mark.parametrize(
    ("request_", "count", "param"),
    [
        (Request(b"", tasks=(Task("detect", labels=tuple("abcdefg")),) * 10), 70, "tasks"),
        (Request(b"", task=Task("detect", labels=tuple(map(str, range(MAX_GENERATIONS + 1))))), 65, "task.labels"),
    ],
)
def test_more_generations_than_are_answered_together_are_refused(request_: Request, count: int, param: str) -> None:
    with pytest.raises(InvalidRequest, match=f"takes {count} .* at most {MAX_GENERATIONS} ") as caught:
        check_generations(request_)
    assert caught.value.param == param


def test_as_many_generations_as_are_answered_together_are_allowed() -> None:
    most = Request(b"", tasks=(Task("detect", labels=tuple("abcd")),) * MAX_TASKS)
    assert generations(most) == MAX_GENERATIONS
    check_generations(most)
    assert len(ask(most, Fake()).parts) == MAX_TASKS
