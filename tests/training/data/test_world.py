"""A seed always gives the same scene, and the pixels agree with the boxes, polygons and words of the scene."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image, ImageDraw

from training.data.drawing import draw
from training.data.lettering import letter_centres
from training.data.scenes import Scene, Shape
from training.data.shapes import KINDS, OUTLINES
from training.data.world import HELD_OUT, LARGEST_SIDE, SMALLEST_SIDE, scene
from training.evaluate import plain
from vlm.types import Box, Point

SCENES = [scene(seed) for seed in range(300)]


def ink(one: Scene) -> Box:
    """The normalised box around all pixels that are not background."""
    pixels = np.asarray(draw(one), dtype=np.int16)
    rows, columns = np.nonzero(np.abs(pixels - np.array(one.shade)).max(axis=2) > 24)
    height, width = pixels.shape[:2]
    return Box(columns.min() / width, rows.min() / height, (columns.max() + 1) / width, (rows.max() + 1) / height)


def assert_near(one: Box, other: Box, width: int, height: int, pixels: float = 1.6) -> None:
    assert abs(one.x_min - other.x_min) * width <= pixels
    assert abs(one.x_max - other.x_max) * width <= pixels
    assert abs(one.y_min - other.y_min) * height <= pixels
    assert abs(one.y_max - other.y_max) * height <= pixels


def test_a_seed_is_always_the_same_scene_and_image() -> None:
    assert [scene(seed) for seed in range(50)] == SCENES[:50]
    assert np.array_equal(np.asarray(draw(scene(7), 120)), np.asarray(draw(SCENES[7], 120)))


def test_held_out_seeds_give_other_scenes() -> None:
    known = {repr(one.shapes) for one in SCENES}
    assert not known & {repr(scene(HELD_OUT + seed).shapes) for seed in range(100) if scene(HELD_OUT + seed).shapes}


def test_all_sizes_counts_and_kinds_occur() -> None:
    sides = [side for one in SCENES for side in (one.width, one.height)]
    assert SMALLEST_SIDE <= min(sides) < 200
    assert 1000 < max(sides) <= LARGEST_SIDE
    assert {len(one.shapes) for one in SCENES} == {0, 1, 2, 3, 4, 5}
    assert {shape.kind for one in SCENES for shape in one.shapes} == set(KINDS)
    assert any(one.inside for one in SCENES)
    assert any(one.width > 1.5 * one.height for one in SCENES)
    assert any(one.height > 1.5 * one.width for one in SCENES)


@pytest.mark.parametrize("seed", range(24))
def test_boxes_are_tight(seed: int) -> None:
    one = plain(scene(seed, (400, 300)))
    for thing in one.things:
        alone = replace(
            one,
            shapes=(thing,) if isinstance(thing, Shape) else (),
            word=None if isinstance(thing, Shape) else thing,
            inside=False,
        )
        assert_near(ink(alone), thing.box, 400, 300, pixels=1.6 if isinstance(thing, Shape) else 2.5)


@pytest.mark.parametrize("seed", [seed for seed, one in enumerate(SCENES) if one.word and one.width < 500][:12])
def test_boxes_of_words_are_tight_at_the_size_of_the_scene(seed: int) -> None:
    one = SCENES[seed]
    assert one.word is not None
    alone = replace(plain(one), shapes=())
    assert_near(ink(alone), one.word.box, one.width, one.height, pixels=2.5)


def test_polygons_touch_all_sides_of_their_boxes() -> None:
    for one in SCENES:
        for shape in one.shapes:
            assert_near(Box.spanning(shape.polygon), shape.box, 1, 1, pixels=1e-6)
            assert len(shape.polygon) == len(OUTLINES[shape.kind])


def test_polygons_cover_the_pixels_of_their_shapes() -> None:
    one = next(one for one in SCENES if len(one.shapes) == 1 and one.shapes[0].kind == "star")
    square = replace(plain(one), width=300, height=300, word=None)
    mask = Image.new("1", (300, 300))
    ImageDraw.Draw(mask).polygon([(p.x * 300, p.y * 300) for p in one.shapes[0].polygon], fill=1)
    pixels = np.abs(np.asarray(draw(square), dtype=np.int16) - np.array(square.shade)).max(axis=2) > 60
    assert (np.asarray(mask) & pixels).sum() / (np.asarray(mask) | pixels).sum() > 0.93


def test_quads_are_clockwise_from_the_top_left() -> None:
    for word in (one.word for one in SCENES if one.word):
        box = word.box
        first, second, third, fourth = word.quad
        assert (first, third) == (Point(box.x_min, box.y_min), Point(box.x_max, box.y_max))
        assert (second, fourth) == (Point(box.x_max, box.y_min), Point(box.x_min, box.y_max))
        assert Box.spanning(word.quad) == box


def test_everything_lies_within_the_image_and_shapes_have_names_and_regions_of_their_own() -> None:
    for one in SCENES:
        for thing in one.things:
            assert 0 <= thing.box.x_min < thing.box.x_max <= 1
            assert 0 <= thing.box.y_min < thing.box.y_max <= 1
        assert len({shape.name for shape in one.shapes}) == len(one.shapes)
        if one.inside:
            outer, inner = (shape.box for shape in one.shapes)
            assert outer.x_min < inner.x_min < inner.x_max < outer.x_max
            assert outer.y_min < inner.y_min < inner.y_max < outer.y_max
        else:
            assert len({shape.region for shape in one.shapes}) == len(one.shapes)
            assert list(one.shapes) == sorted(one.shapes, key=lambda shape: shape.centre.x)


def test_centres_of_letters_are_in_order() -> None:
    centres = letter_centres("WIDE")
    assert list(centres) == sorted(centres)
    assert 0 < centres[0] < centres[-1] < 1
