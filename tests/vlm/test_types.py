"""The types that cross process boundaries can be pickled, and refuse values out of range."""

from __future__ import annotations

import pickle
from dataclasses import fields, replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import vlm.errors
from vlm.errors import InvalidImage, InvalidRequest, UnsupportedTask, VlmError
from vlm.types import (
    MAX_TASKS,
    Box,
    Chunk,
    Completion,
    Detection,
    Grounding,
    Point,
    Request,
    Sampling,
    Task,
    Timings,
    Usage,
)

ERRORS = [kind for kind in vars(vlm.errors).values() if isinstance(kind, type) and issubclass(kind, Exception)]


@pytest.mark.parametrize("kind", ERRORS)
def test_an_error_pickles_with_all_its_fields(kind: type[VlmError]) -> None:
    error = pickle.loads(pickle.dumps(kind("No.", param="sampling.top_p", code="invalid_value")))
    assert type(error) is kind
    assert (error.message, error.param, error.code) == ("No.", "sampling.top_p", "invalid_value")
    assert str(error) == "No."


@pytest.mark.parametrize("kind", ERRORS)
def test_param_and_code_may_be_absent(kind: type[VlmError]) -> None:
    error = pickle.loads(pickle.dumps(kind("No.")))
    assert (str(error), error.param, error.code) == ("No.", None, None)


def test_bad_images_and_tasks_are_invalid_requests() -> None:
    assert issubclass(InvalidImage, InvalidRequest)
    assert issubclass(UnsupportedTask, InvalidRequest)
    assert all(issubclass(kind, VlmError) for kind in ERRORS)


@pytest.mark.parametrize(
    ("field", "good", "bad"),
    [
        ("max_tokens", [1, 4096], [0, -1]),
        ("temperature", [0, 0.0, 2.0], [-0.1, 2.1, float("nan")]),
        ("top_p", [0, 1e-9, 1.0], [1.1, -1.0, -0.01, float("nan")]),
        ("repetition_penalty", [0.5, 10.0], [0.0, 10.1, float("nan")]),
        ("no_repeat_ngram_size", [0, 64], [-1, 65]),
        ("stop", [(), ("a", "b", "c", "d")], [("a", "b", "c", "d", "e"), ("",)]),
        ("num_beams", [1, 8], [0, 9]),
        ("length_penalty", [-8.0, 8.0], [-8.1, 8.1, float("nan")]),
        ("frequency_penalty", [-2, 0, 2.0], [-2.1, 2.1, float("nan")]),
        ("presence_penalty", [-2, 0, 2.0], [-2.1, 2.1, float("nan")]),
        ("top_k", [-1, 0, 1, 10**9], [-2]),
        ("min_p", [0, 1.0], [-0.1, 1.1, float("nan")]),
        (
            "logit_bias",
            [(), ((0, -100.0), (7, 100.0)), tuple((token, 1.0) for token in range(300))],
            [((0, 100.1),), ((0, float("nan")),), ((3, 1.0), (3, 1.0)), tuple((token, 1.0) for token in range(301))],
        ),
    ],
)
def test_sampling_refuses_what_is_out_of_range_and_names_the_field(
    field: str, good: list[object], bad: list[object]
) -> None:
    for value in good:
        assert getattr(Sampling(**{field: value}), field) == value  # type: ignore[arg-type]  # one field of any type
    for value in bad:
        with pytest.raises(InvalidRequest) as caught:
            Sampling(**{field: value})  # type: ignore[arg-type]  # the point of the test
        assert (caught.value.param, caught.value.code) == (field, "invalid_value")
        assert field in caught.value.message


def test_top_logprobs_need_logprobs() -> None:
    assert Sampling(logprobs=True, top_logprobs=20).top_logprobs == 20
    for wrong in ({"top_logprobs": 1}, {"top_logprobs": 21, "logprobs": True}, {"top_logprobs": -1, "logprobs": True}):
        with pytest.raises(InvalidRequest) as caught:
            Sampling(**wrong)  # type: ignore[arg-type]  # the point of the test
        assert caught.value.param == "top_logprobs"


def test_over_takes_every_unset_field_from_the_defaults() -> None:
    defaults = Sampling(20, 0.0, 1.0, None, (), 1.0, 3, (0,), 2)
    assert Sampling().over(defaults) == defaults
    mine = Sampling(5, 1.0, 0.5, 7, ("x",), 2.0, 0, (), 9, logprobs=True)
    assert mine.over(defaults) == mine


def test_beam_search_cannot_be_combined_with_sampling() -> None:
    with pytest.raises(InvalidRequest, match="set temperature to 0 or num_beams to 1") as caught:
        Sampling(temperature=0.5, num_beams=2)
    assert (caught.value.param, caught.value.code) == ("num_beams", "invalid_value")
    assert Sampling(temperature=0.0, num_beams=2).num_beams == 2
    assert Sampling(temperature=0.5, num_beams=1).num_beams == 1


def test_asking_for_beams_or_sampling_overrides_the_other_one_s_default() -> None:
    beams, draws = Sampling(temperature=0.0, num_beams=3), Sampling(temperature=0.7, num_beams=1)
    assert Sampling(temperature=0.5).over(beams) == Sampling(temperature=0.5, num_beams=1)
    assert Sampling(num_beams=2).over(draws) == Sampling(temperature=0.0, num_beams=2)
    assert Sampling(num_beams=1).over(draws) == draws  # one beam is no beam search
    assert Sampling().over(beams) == beams
    assert Sampling().over(draws) == draws


def test_a_request_has_one_task_or_parts_within_bounds() -> None:
    one = Task("detect")
    assert len(Request(b"", tasks=(one,) * MAX_TASKS).tasks) == MAX_TASKS
    faults: list[dict[str, Any]] = [{"task": one, "tasks": (one,)}, {"tasks": (one,) * (MAX_TASKS + 1)}]
    for bad in faults:
        with pytest.raises(InvalidRequest) as caught:
            Request(b"", **bad)
        assert (caught.value.param, caught.value.code) == ("tasks", "invalid_value")


def test_a_task_names_the_arguments_that_are_set_but_not_used() -> None:
    everything = Task("detect", ("dog",), "text", Box(0, 0, 1, 1), "long", 3, True, (Point(0, 1),), 0.5)
    names = ("labels", "text", "region", "length", "max_objects", "reasoning", "references", "threshold")
    assert everything.unused(()) == tuple(f"task.{name}" for name in names)
    assert everything.unused({"labels", "threshold"}) == tuple(f"task.{name}" for name in names[1:-1])
    assert everything.unused(names) == Task("detect").unused(()) == ()
    assert Task("query", text="", max_objects=0).unused({"labels"}) == ("task.text", "task.max_objects")


def test_over_takes_no_seed_stop_or_logprobs_from_the_defaults() -> None:
    defaults = Sampling(20, seed=1, stop=("x",), logprobs=True)
    assert Sampling().over(defaults) == Sampling(20)


@given(st.lists(st.tuples(st.floats(-2, 3), st.floats(-2, 3)), min_size=1))
def test_a_spanning_box_is_within_the_image_and_holds_every_clamped_point(points: list[tuple[float, float]]) -> None:
    box = Box.spanning(tuple(Point(x, y) for x, y in points))
    assert 0 <= box.x_min <= box.x_max <= 1
    assert 0 <= box.y_min <= box.y_max <= 1
    for x, y in points:
        inside = Point.clamped(x, y)
        assert box.x_min <= inside.x <= box.x_max
        assert box.y_min <= inside.y <= box.y_max


def _completion() -> Completion:
    corners = (Point(0.1, 0.1), Point(0.2, 0.1), Point(0.2, 0.3))
    found = Detection("polygon", label="leaf", polygons=(corners,), box=Box.spanning(corners), spans=((0, 4),))
    return Completion(
        text="leaf",
        token_ids=(5, 2),
        logprobs=(-0.5, -0.1),
        grounding=Grounding("segment", "<X>", "leaf", (640, 480), (found,), truncated=True, raw="leaf</s>"),
        finish_reason="stop",
        usage=Usage(577, 4, 2),
        timings=Timings(1.0, 2.0, 3.0, 4.0),
        resolution="task",
        ignored=("prompt",),
    )


def test_requests_chunks_and_completions_pickle() -> None:
    task = Task("detect", ("dog",), "text", Box(0, 0, 1, 1), "long")
    for value in (
        Request(b"\x00", "<OD>", task, Sampling(3)),
        Request(b"\x00", tasks=(task, Task("point", threshold=0.5, references=(Point(0, 1), Box(0, 0, 1, 1))))),
        Chunk("a", (1,), (-0.5,), reasoning="b"),
        Chunk(completion=replace(_completion(), parts=(_completion(), _completion()))),
    ):
        assert pickle.loads(pickle.dumps(value)) == value


def test_chunks_are_joined_piece_by_piece() -> None:
    completion = _completion()
    chunks = (
        Chunk(token_ids=(1,), reasoning="I see"),
        Chunk("A ", (2, 3), (-0.5,), reasoning=" a dog."),
        Chunk("dog", (4,), (-0.25,), completion),
    )
    assert Chunk.joined(chunks) == Chunk("A dog", (1, 2, 3, 4), (-0.5, -0.25), completion, "I see a dog.")


def test_the_chunk_of_a_whole_answer_holds_the_tokens_of_every_choice() -> None:
    first, second = _completion(), replace(_completion(), token_ids=(7, 8, 9), text="another")
    assert Chunk.whole(first) == Chunk(first.text, first.token_ids, first.logprobs, first)
    both = replace(first, choices=(first, second))
    pieces = (
        Chunk(first.text, first.token_ids, first.logprobs),
        Chunk("another", (7, 8, 9), second.logprobs, index=1),
    )
    assert Chunk.whole(both) == Chunk(completion=both, choices=pieces)


def test_the_reasoning_is_that_of_the_first_part_with_text() -> None:
    def with_reasoning(reasoning: str | None, *, has_text: bool = True) -> Completion:
        grounding = replace(_completion().grounding, reasoning=reasoning)
        return replace(_completion(), grounding=grounding, has_text=has_text)

    assert _completion().reasoning is None
    assert with_reasoning("hm").reasoning == "hm"
    assert (
        replace(
            with_reasoning("a"), parts=(with_reasoning(None, has_text=False), with_reasoning("b"), with_reasoning("c"))
        ).reasoning
        == "b"
    )
    assert replace(with_reasoning("a", has_text=False), parts=(with_reasoning("a", has_text=False),)).reasoning == "a"


def test_everything_is_frozen() -> None:
    completion = _completion()
    for value in (completion, completion.grounding, completion.usage, Chunk(), Request(None), Sampling()):
        with pytest.raises(AttributeError):
            setattr(value, fields(value)[0].name, None)


def test_what_has_no_effect_where_the_model_chooses_no_tokens() -> None:
    asked = Sampling(
        max_tokens=5, temperature=1.0, top_p=0.5, top_k=3, min_p=0.1, seed=1, stop=("x",), repetition_penalty=1.5,
        no_repeat_ngram_size=2, frequency_penalty=1, presence_penalty=1, logit_bias=((1, 1.0),), logprobs=True,
    )  # fmt: skip
    penalties = {"repetition_penalty", "no_repeat_ngram_size", "frequency_penalty", "presence_penalty", "logit_bias"}
    assert set(asked.unused(asked, chooses_tokens=False)) == {"temperature", "top_p", "top_k", "min_p", *penalties}
    assert asked.unused(asked) == ()
    nothing = Sampling(temperature=0.0, top_p=1.0, repetition_penalty=1.0, no_repeat_ngram_size=0)
    assert nothing.unused(nothing, chooses_tokens=False) == ()
