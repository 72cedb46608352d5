"""What every format's answer holds: the rule for ``content``, the grounding object, and our own keys."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.conversation.answer import (
    ResponseMeta,
    ResponseOptions,
    content_of,
    early_text,
    extras_json,
    grounding_of,
    logprobs_json,
)
from tests.router.world import BALL, geometry, several, words
from vlm.types import Box, Chunk, Completion, Detection, Grounding, Point, TopLogprob

META = ResponseMeta("blip-large", "req_1", ignored=("user",))

BALL_JSON = {
    "id": 0,
    "image": 0,
    "kind": "box",
    "label": "ball",
    "text": None,
    "score": None,
    "score_type": None,
    "confidence": None,
    "box": [0.1, 0.2, 0.5, 0.6],
    "box_px": [64.0, 96.0, 320.0, 288.0],
    "point": None,
    "point_px": None,
    "quad": None,
    "quad_px": None,
    "polygons": None,
    "polygons_px": None,
    "spans": [],
    "answers": None,
    "consensus": None,
}


def test_without_an_image_its_cache_is_null() -> None:
    completion = replace(words(), grounding=replace(words().grounding, image_size=None))
    assert extras_json(completion, META)["image_cache"] is None


def test_objects_stand_beside_the_text_normalised_and_in_pixels() -> None:
    grounding = grounding_of(geometry(), ResponseOptions())
    assert grounding["objects"][0] == BALL_JSON
    kite = grounding["objects"][1]
    assert (kite["id"], kite["point"], kite["point_px"]) == (1, [0.25, 0.75], [160.0, 360.0])
    assert (kite["score"], kite["score_type"], kite["box"]) == (0.5, "token_prob", None)


@pytest.mark.parametrize(
    ("completion", "options", "content"),
    [
        (words(), ResponseOptions(), "a red square"),
        (words("a ball", BALL), ResponseOptions(), "a ball"),
        (words(), ResponseOptions("json"), {"text": "a red square"}),
        (words(), ResponseOptions("raw"), "a red square</s>"),
        (geometry(), ResponseOptions("raw"), "ball<loc_100></s>"),
        (
            geometry(BALL),
            ResponseOptions(),
            {"objects": [{name: BALL_JSON[name] for name in ("label", "box", "box_px")}]},
        ),
    ],
)
def test_content(completion: Completion, options: ResponseOptions, content: object) -> None:
    sent = content_of(completion, options)
    assert (sent if isinstance(content, str) else json.loads(sent)) == content


@pytest.mark.parametrize(
    ("completion", "options"),
    [
        (words(), ResponseOptions("grounding")),
        (geometry(), ResponseOptions("grounding")),
        (geometry(), ResponseOptions("json")),
        (words("a ball", BALL), ResponseOptions("json")),
        (geometry(), ResponseOptions("grounding", include_raw=True)),
        (several(), ResponseOptions("grounding")),
        (several(), ResponseOptions("json")),
        (several(words(), words()), ResponseOptions("json")),
    ],
)
def test_content_as_the_whole_grounding(completion: Completion, options: ResponseOptions) -> None:
    assert json.loads(content_of(completion, options)) == grounding_of(completion, options)


def test_without_any_text_the_content_is_the_geometry_of_the_first_task() -> None:
    silent = replace(geometry(BALL), parts=(geometry(BALL), geometry()))
    assert [found["label"] for found in json.loads(content_of(silent, ResponseOptions()))["objects"]] == ["ball"]


def test_nothing_found_is_an_empty_list() -> None:
    nothing = replace(geometry(), grounding=replace(geometry().grounding, detections=()))
    assert content_of(nothing, ResponseOptions()) == '{"objects":[]}'


def test_content_is_compact_json_without_escapes() -> None:
    assert content_of(words("ein grünes Café"), ResponseOptions("json")) == '{"text":"ein grünes Café"}'


@pytest.mark.parametrize("options", [ResponseOptions(), ResponseOptions("json"), ResponseOptions("raw")])
@pytest.mark.parametrize("completion", [None, words(), geometry()])
def test_only_a_text_that_is_the_content_is_sent_early(completion: Completion | None, options: ResponseOptions) -> None:
    is_text = options.content == "answer" and (completion is None or completion.has_text)
    assert early_text(Chunk(text="a", completion=completion), options) == ("a" if is_text else "")


def test_raw_is_present_only_on_request() -> None:
    assert grounding_of(words(), ResponseOptions())["raw"] is None
    assert grounding_of(words(), ResponseOptions(include_raw=True))["raw"] == "a red square</s>"


def test_logprobs_have_each_tokens_text_and_bytes() -> None:
    choice = logprobs_json(words(), ResponseOptions(logprobs=True))
    assert choice["token_ids"] == [11, 12, 2]
    assert choice["logprobs"]["refusal"] is None
    assert choice["logprobs"]["content"][0] == {
        "token": "a",
        "logprob": -0.5,
        "bytes": [97],
        "top_logprobs": [],
    }
    assert len(choice["logprobs"]["content"]) == 3


def test_the_likeliest_tokens_of_each_step() -> None:
    step = (TopLogprob(11, -0.5, b"a"), TopLogprob(4, -1.25, b"the"))
    answer = replace(words(), top_logprobs=(step, step[1:], ()))
    content = logprobs_json(answer, ResponseOptions(logprobs=True))["logprobs"]["content"]
    the = {"token": "the", "logprob": -1.25, "bytes": [116, 104, 101]}
    assert [one["top_logprobs"] for one in content] == [
        [{"token": "a", "logprob": -0.5, "bytes": [97]}, the],
        [the],
        [],
    ]


@pytest.mark.parametrize(
    ("piece", "token"),
    [
        (" é".encode(), " é"),
        (" 😀".encode()[:3], " \\xf0\\x9f"),
        ("😀".encode()[2:], "\\x98\\x80"),
        (b"", ""),
    ],
)
def test_a_part_of_a_character_is_spelled_as_openai_does(piece: bytes, token: str) -> None:
    answer = replace(words(), token_ids=(7,), logprobs=(-0.5,), token_bytes=(piece,))
    [entry] = logprobs_json(answer, ResponseOptions(logprobs=True))["logprobs"]["content"]
    assert (entry["token"], entry["bytes"]) == (token, list(piece))


def test_what_the_model_ignored_is_added_once() -> None:
    completion = replace(words(), ignored=("prompt", "user"))
    assert extras_json(completion, META)["ignored"] == ["user", "prompt"]
    located = replace(META, path_of=lambda name: {"prompt": "messages[0].content"}.get(name, name))
    assert extras_json(completion, located)["ignored"] == ["user", "messages[0].content"]


units = st.floats(0, 1)
points = st.builds(Point, units, units)
corners = st.tuples(points, points, points, points)


def _boxed(kind: str, **shape: Any) -> Detection:
    around = [point for value in shape.values() for point in (value if kind == "quad" else sum(value, ()))]
    return Detection(kind, box=Box.spanning(tuple(around)), **shape)  # type: ignore[arg-type]  # kind is one of the two


detections = st.one_of(
    st.builds(lambda a, b, label: Detection("box", label, box=Box.spanning((a, b))), points, points, st.text()),
    st.builds(lambda p, score: Detection("point", score=score, point=p), points, st.none() | units),
    st.builds(lambda quad: _boxed("quad", quad=quad), corners),
    st.builds(lambda polygons: _boxed("polygon", polygons=tuple(polygons)), st.lists(corners, min_size=1, max_size=3)),
)
sizes = st.tuples(st.integers(1, 20_000), st.integers(1, 20_000))


def flat(shape: Any) -> list[float]:
    return [shape] if not isinstance(shape, list) else [number for inner in shape for number in flat(inner)]


@given(st.lists(detections, max_size=5), sizes, st.sampled_from(["answer", "json", "grounding"]))
def test_invariants_of_the_grounding_object(found: list[Detection], size: tuple[int, int], content: Any) -> None:
    completion = replace(geometry(), grounding=Grounding("detect", "<OD>", None, size, tuple(found)))
    objects = grounding_of(completion, ResponseOptions(content))["objects"]
    assert [one["id"] for one in objects] == list(range(len(found)))
    for one in objects:
        assert (one["score"] is None) == (one["score_type"] is None)
        assert one[one["kind"] if one["kind"] != "polygon" else "polygons"] is not None
        assert one["box"] is not None or one["kind"] == "point"
        if one["box"] is not None:
            x1, y1, x2, y2 = one["box"]
            assert x1 <= x2
            assert y1 <= y2
        for name in ("box", "point", "quad", "polygons"):
            _check_frames(flat(one[name]), flat(one[f"{name}_px"]), size)
    json.loads(content_of(completion, ResponseOptions(content)))


def _check_frames(norm: list[Any], pixels: list[Any], size: tuple[int, int]) -> None:
    if norm == [None]:
        assert pixels == [None]
        return
    assert len(norm) == len(pixels)
    for index, (part, pixel) in enumerate(zip(norm, pixels, strict=True)):
        side = size[index % 2]
        assert 0 <= part <= 1
        assert abs(pixel - part * side) <= 0.006 + 1e-6 * side  # two decimals of a pixel, six of a side
        assert pixel == round(pixel, 2)


def test_a_task_of_geometry_keeps_its_text_in_the_grounding() -> None:
    """Its spans need the text that they point into, but its content is the objects."""
    grounded = replace(geometry(), grounding=replace(geometry().grounding, task="ground", text="a ball and a kite"))
    content = json.loads(content_of(grounded, ResponseOptions()))
    assert [found["label"] for found in content["objects"]] == ["ball", "kite"]
