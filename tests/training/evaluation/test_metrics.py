"""Marks on cases made by hand, and the examination's machinery with a checkpoint that has learnt nothing."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
import torch

from tests.training.recipes import untrained
from training.data.shapes import COLOURS
from training.data.world import HELD_OUT, scene
from training.evaluation.clients import in_process
from training.evaluation.evaluate import MINIATURES, NAMES, examination, held_out, main, score, table
from training.evaluation.metrics import Mark, Row, exact, found, letters, overlap, polygon_overlap, within
from training.grid import GridHead, label
from training.model_card import CARD, add_scores, write_card
from vlm.types import Box, Point

LEFT, RIGHT = Box(0.0, 0.0, 0.4, 1.0), Box(0.6, 0.0, 1.0, 1.0)
SQUARE = (Point(0.25, 0.25), Point(0.75, 0.25), Point(0.75, 0.75), Point(0.25, 0.75))


def test_texts_are_right_or_wrong() -> None:
    assert exact(" a  red circle", "a red circle") == Mark(1, 1)
    assert exact("a red star", "a red circle") == Mark(0, 1)


@pytest.mark.parametrize(
    ("text", "gained"), [("STOP", 4), ("STP", 3), ("STOOP", 3), ("XXXX", 0), ("", 0), ("ABCDEFGHI", 0)]
)
def test_letters_count_one_by_one(text: str, gained: int) -> None:
    assert letters(text, "STOP") == Mark(gained, 4)


def test_boxes_are_found_once_by_their_label() -> None:
    wanted = [("a", LEFT), ("a", RIGHT)]
    assert found(wanted, wanted) == Mark(4, 4)
    assert found([("a", LEFT), ("a", LEFT)], wanted) == Mark(2, 4)
    assert found([("b", LEFT)], wanted) == Mark(0, 3)
    assert found([], []) == Mark(0, 0)
    assert found([("a", Box(0.3, 0.0, 0.7, 1.0))], wanted) == Mark(0, 3)  # overlaps too little


def test_overlap_of_boxes_and_polygons() -> None:
    assert overlap(LEFT, LEFT) == pytest.approx(1)
    assert overlap(LEFT, RIGHT) == 0
    assert overlap(LEFT, Box(0.2, 0.0, 0.6, 1.0)) == pytest.approx(1 / 3)
    assert polygon_overlap([SQUARE], SQUARE) == Mark(1, 1)
    assert polygon_overlap([], SQUARE) == Mark(0, 1)
    half = (Point(0.25, 0.25), Point(0.75, 0.25), Point(0.75, 0.5), Point(0.25, 0.5))
    assert polygon_overlap([half], SQUARE).gained == pytest.approx(0.5, abs=0.02)


def test_points_must_lie_within() -> None:
    assert within([Point(0.5, 0.5)], [SQUARE]) == Mark(2, 2)
    assert within([Point(0.1, 0.5)], [SQUARE]) == Mark(0, 2)
    assert within([Point(0.5, 0.5), Point(0.5, 0.5)], [SQUARE]) == Mark(2, 3)
    assert within([Point(1.0, 1.0)], []) == Mark(0, 1)


def test_the_table_has_targets_and_leaves_out_what_was_not_asked() -> None:
    rows = [Row("caption", 0.9), Row("boxes"), Row("unasked", 0.5)]
    text = table(rows, {"caption": (0.5, 10), "boxes": (1.0, 3)})
    assert "50.0" in text
    assert "LOW" in text
    assert "100.0" in text
    assert "unasked" not in text


@pytest.mark.parametrize("name", NAMES)
def test_every_item_has_a_row(name: str) -> None:
    import random

    exam = examination(name)
    rows = {row.name for row in exam.ROWS}
    asked = {
        row
        for number in range(30)
        for item in exam.items(scene(HELD_OUT + number), b"", random.Random(number))
        for row in item.marks
    }
    assert asked == rows


def test_an_untrained_miniature_is_marked(tmp_path: Path) -> None:
    torch.set_num_threads(1)
    (tmp_path / "blip-large").mkdir()
    untrained("blip-large").export(tmp_path / "blip-large")
    with in_process(tmp_path / "blip-large") as asker:
        scores = asyncio.run(score("blip-large", asker, held_out(2)))
    assert scores["caption, exact"] == (0.0, 2)


def test_a_card_holds_the_latest_scores(tmp_path: Path) -> None:
    write_card(tmp_path, "blip-large", 100, 8)
    add_scores(tmp_path, "Any", "first", "one")
    add_scores(tmp_path, "Small", "first", "small")
    add_scores(tmp_path, "Any", "second", "two")
    card = (tmp_path / CARD).read_text()
    assert "license: apache-2.0" in card
    assert "100 steps of 8 images" in card
    assert card.count("## Scores") == 1
    assert "small\n" in card
    assert "two\n" in card
    assert "one\n" not in card


def test_images_drawn_by_hand_have_one_size_and_plain_colours(capsys: pytest.CaptureFixture[str]) -> None:
    plain = held_out(3, (640, 480))
    assert {(one.width, one.height) for one in plain} == {(640, 480)}
    assert {shape.shade for one in plain for shape in one.shapes} <= set(COLOURS.values())
    assert not any(one.texture.grain or one.texture.stripes for one in plain)
    assert main(["blip-large", "--images", "1", "--size", "640x480", "--folder", str(MINIATURES)]) == 0
    assert "conditional caption" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--size", "640"], "must be WIDTHxHEIGHT"),
        (["--size", "0x5"], "must be WIDTHxHEIGHT"),
        (["--size", "1600x600"], "neither over twice the other"),
        (["--images", "0"], "from 1 on"),
        (["blip"], "invalid choice"),
    ],
)
def test_what_cannot_be_examined_is_refused(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(arguments)
    assert said in capsys.readouterr().err


@pytest.mark.parametrize("names", [[], ["blip-large"]])
def test_a_folder_without_checkpoints_is_named(
    names: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*names, "--folder", str(tmp_path), "--images", "1"]) == 2
    assert str(tmp_path) in capsys.readouterr().err


def test_cells_say_what_lies_in_them() -> None:
    for seed in range(40):
        one = scene(seed)
        cells = label(one, 8)
        kinds = {int(kind) for kind in cells.classes[:, 0]} - {0}
        assert len(kinds) == len({shape.kind for shape in one.shapes})
        spelled = sum(int(letter) > 0 for row in cells.classes[:, 3:] for letter in row)
        assert spelled <= (len(one.word.text) if one.word else 0)
        assert bool(spelled) == bool(one.word)


def test_a_head_that_reads_the_grid_has_a_loss() -> None:
    loss, measures = GridHead(16, 6)(torch.randn(2, 36, 16), [scene(0), scene(4)])
    assert loss.item() > 0
    assert 0 <= measures.kind <= 1
