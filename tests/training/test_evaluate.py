"""The evaluation command in this process: its items, its table, and its error messages."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path

import pytest
import torch

from tests.training.recipes import untrained
from training.data.shapes import COLOURS
from training.data.world import HELD_OUT, scene
from training.evaluate import MINIATURES, NAMES, evaluate, held_out, held_out_stacks, load_evaluation, main, table
from training.evaluation.clients import in_process
from training.evaluation.metrics import Row


def test_the_table_has_targets_and_omits_rows_without_answers() -> None:
    rows = [Row("caption", 0.9), Row("boxes"), Row("unasked", 0.5)]
    text = table(rows, {"caption": (0.5, 10), "boxes": (1.0, 3)})
    assert "50.0" in text
    assert "LOW" in text
    assert "100.0" in text
    assert "unasked" not in text


@pytest.mark.parametrize("name", NAMES)
def test_items_and_rows_belong_together(name: str) -> None:
    evaluation = load_evaluation(name)
    rows = {row.name for row in evaluation.ROWS}
    scored = {
        row
        for number in range(30)
        for item in evaluation.items(scene(HELD_OUT + number), b"", random.Random(number))
        for row in item.scorers
    }
    if hasattr(evaluation, "stack_items"):
        [stack] = held_out_stacks(1)
        scored |= {row for item in evaluation.stack_items(stack, b"", random.Random(0)) for row in item.scorers}
    assert scored == rows


def test_an_untrained_miniature_can_be_evaluated(tmp_path: Path) -> None:
    torch.set_num_threads(1)
    (tmp_path / "blip-large").mkdir()
    untrained("blip-large").export(tmp_path / "blip-large")
    with in_process(tmp_path / "blip-large") as client:
        scores = asyncio.run(evaluate("blip-large", client, held_out(2)))
    assert scores["caption, exact"] == (0.0, 2)


def test_scenes_of_a_given_size_have_plain_colours(capsys: pytest.CaptureFixture[str]) -> None:
    plain = held_out(3, (640, 480))
    assert {(one.width, one.height) for one in plain} == {(640, 480)}
    assert {shape.shade for one in plain for shape in one.shapes} <= set(COLOURS.values())
    assert not any(one.texture.grain or one.texture.stripes for one in plain)
    assert main(["blip-large", "--images", "1", "--size", "640x480", "--folder", str(MINIATURES)]) == 0
    assert "conditional caption" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--size", "640"], "must be WIDTHxHEIGHT"),
        (["--size", "0x5"], "must be WIDTHxHEIGHT"),
        (["--size", "1600x600"], "neither over twice the other"),
        (["--images", "0"], "from 1 on"),
        (["blip"], "invalid choice"),
    ],
)
def test_invalid_arguments_are_rejected(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(arguments)
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("names", [[], ["blip-large"]])
def test_a_folder_without_checkpoints_is_named(
    names: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*names, "--folder", str(tmp_path), "--images", "1"]) == 2
    assert str(tmp_path) in capsys.readouterr().err


def test_stacks_are_asked_about_where_a_model_is_evaluated_on_them() -> None:
    """One request for each shape of each stack; a model whose evaluation has no such rows is not asked."""
    row = load_evaluation("moondream-2").ROWS[-1].name
    stacks = held_out_stacks(2)
    with in_process(MINIATURES / "moondream-2") as client:
        scores = asyncio.run(evaluate("moondream-2", client, held_out(1), stacks))
    assert scores[row][1] == sum(len(one.shapes) for one in stacks)
    with in_process(MINIATURES / "blip-large") as client:
        assert row not in asyncio.run(evaluate("blip-large", client, held_out(1), stacks))
