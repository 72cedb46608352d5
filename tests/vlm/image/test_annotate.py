"""Annotating changes the image where something was found, keeps labels inside, and never fails on odd sizes."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageChops

from vlm.image.annotate import COLOURS, draw
from vlm.types import Box, Detection, Grounding, Point, Polygon

WHITE, BLACK = (250, 250, 250), (8, 8, 8)
Colour = tuple[int, int, int]


def _polygon(*places: tuple[float, float]) -> Polygon:
    return tuple(Point(x, y) for x, y in places)


TRIANGLE = _polygon((0.2, 0.2), (0.8, 0.3), (0.5, 0.9))
SLANTED = _polygon((0.1, 0.4), (0.6, 0.5), (0.58, 0.7), (0.08, 0.6))


def _box(label: str | None, x_min: float, y_min: float, x_max: float, y_max: float) -> Detection:
    return Detection("box", label=label, box=Box(x_min, y_min, x_max, y_max))


SHAPES = {
    "box": _box("dog", 0.2, 0.3, 0.7, 0.8),
    "point": Detection("point", label="dog", point=Point(0.5, 0.5)),
    "quad": Detection("quad", text="EXIT", quad=SLANTED, box=Box.spanning(SLANTED)),
    "polygon": Detection("polygon", label="dog", polygons=(TRIANGLE,), box=Box.spanning(TRIANGLE)),
}


def _drawn(*detections: Detection, size: tuple[int, int] = (320, 240), ground: Colour = WHITE) -> Image.Image:
    return draw(Image.new("RGB", size, ground), Grounding("detect", "<OD>", None, size, detections))


def _changed(image: Image.Image, ground: Colour = WHITE) -> tuple[int, int, int, int] | None:
    return ImageChops.difference(image, Image.new("RGB", image.size, ground)).getbbox()


def _colours_of(image: Image.Image) -> set[Any]:
    return {colour for _, colour in image.getcolors(1 << 24) or []}


@pytest.mark.parametrize("kind", SHAPES)
@pytest.mark.parametrize("ground", [WHITE, BLACK])
def test_every_kind_of_shape_is_visible(kind: str, ground: Colour) -> None:
    image = _drawn(SHAPES[kind], ground=ground)
    assert image.mode == "RGB"
    assert _changed(image, ground) is not None
    assert COLOURS[0] in _colours_of(image)


def test_the_image_itself_is_not_touched() -> None:
    before = Image.new("RGB", (64, 64), WHITE)
    draw(before, Grounding("detect", "<OD>", None, (64, 64), (SHAPES["box"],)))
    assert _changed(before) is None


def test_an_empty_grounding_changes_nothing() -> None:
    assert _changed(_drawn()) is None


def test_a_box_lies_where_it_was_found() -> None:
    changed = _changed(_drawn(_box(None, 0.25, 0.25, 0.75, 0.75)))
    assert changed is not None
    assert all(abs(got - want) <= 4 for got, want in zip(changed, (80, 60, 240, 180), strict=True))


def test_a_box_of_the_whole_image_is_drawn_inside_it() -> None:
    image = _drawn(_box(None, 0, 0, 1, 1))
    for pixel in ((160, 1), (160, 238), (1, 120), (318, 120)):
        assert image.getpixel(pixel) == COLOURS[0]


def test_a_polygon_is_filled_lightly_and_its_enclosing_box_is_not_drawn() -> None:
    image = _drawn(Detection("polygon", polygons=(TRIANGLE,), box=Box.spanning(TRIANGLE)))
    inside, corner = image.getpixel((160, 110)), image.getpixel((70, 210))
    assert inside not in (WHITE, COLOURS[0])
    assert corner == WHITE


def test_equal_labels_have_equal_colours_and_others_differ() -> None:
    boxes = [_box(name, 0.1, 0.1 + 0.2 * index, 0.9, 0.25 + 0.2 * index) for index, name in enumerate("abab")]
    colours = _colours_of(_drawn(*boxes, size=(400, 400)))
    assert {COLOURS[0], COLOURS[1]} <= colours
    assert COLOURS[2] not in colours


def test_ten_labels_have_ten_colours() -> None:
    boxes = [_box(str(index), 0.1 * index, 0.5, 0.1 * index + 0.05, 0.9) for index in range(10)]
    assert set(COLOURS) <= _colours_of(_drawn(*boxes, size=(800, 400)))


def test_lines_grow_with_the_image() -> None:
    def inked(side: int) -> int:
        image = _drawn(_box(None, 0.25, 0.25, 0.75, 0.75), size=(side, side))
        column = [image.getpixel((side // 2, y)) for y in range(side // 2)]
        return column.count(COLOURS[0])

    assert 2 <= inked(200) < inked(1600)


@pytest.mark.parametrize("location", [(0.0, 0.0), (1.0, 0.0), (0.0, 1.0), (1.0, 1.0)])
def test_a_label_at_a_corner_stays_inside(location: tuple[float, float]) -> None:
    image = _drawn(Detection("point", label="corner", point=Point(*location)))
    # The plate is whole: it has as many pixels as that of a label in the middle, except those under the dot.
    middle = _drawn(Detection("point", label="corner", point=Point(0.5, 0.5)))
    counts = [
        sum(count for count, colour in drawn.getcolors(1 << 24) or [] if colour == COLOURS[0])
        for drawn in (image, middle)
    ]
    assert counts[0] > 0.7 * counts[1]


def test_labels_at_the_same_location_do_not_hide_each_other() -> None:
    image = _drawn(_box("first", 0.3, 0.4, 0.8, 0.9), _box("second", 0.3, 0.4, 0.8, 0.9), size=(640, 480))
    counts = {colour: count for count, colour in image.getcolors(1 << 24) or []}
    assert counts[COLOURS[0]] > 300  # its line is hidden by that of the second, so these pixels are its plate
    assert counts[COLOURS[1]] > 300


def test_a_label_wider_than_the_image_is_cut() -> None:
    assert _changed(_drawn(_box("word " * 200, 0.1, 0.5, 0.9, 0.9))) is not None


units = st.floats(0, 1)
points = st.builds(Point, units, units)
captions = st.none() | st.text(max_size=30)
detections = st.one_of(
    st.builds(lambda label, a, b: Detection("box", label=label, box=Box.spanning((a, b))), captions, points, points),
    st.builds(lambda label, point: Detection("point", label=label, point=point), captions, points),
    st.builds(
        lambda label, shapes: Detection("polygon", label=label, polygons=tuple(map(tuple, shapes))),
        captions,
        st.lists(st.lists(points, min_size=1, max_size=4), max_size=3),
    ),
)


@settings(max_examples=60, deadline=None)
@given(st.lists(detections, max_size=4), st.tuples(st.integers(1, 90), st.integers(1, 90)))
def test_any_grounding_on_any_size_can_be_drawn(found: list[Detection], size: tuple[int, int]) -> None:
    assert _drawn(*found, size=size).size == size
