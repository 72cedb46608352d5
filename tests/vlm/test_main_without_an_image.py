"""The command line with a question alone, and a model that can answer it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from vlm.__main__ import main

ROOT = Path(__file__).parents[2]
MOONDREAM = str(ROOT / "tests" / "data" / "moondream2")
HOW = ["--device", "cpu", "--dtype", "float32", "--max-tokens", "48"]
QUESTION, ANSWER = "how many trees are in the picture?", "bo! an yesthe image shows a like"


def test_a_prompt_is_answered(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([MOONDREAM, "--prompt", QUESTION, *HOW]) == 0
    assert capsys.readouterr().out == f"{ANSWER}\n"


def test_json_has_null_for_the_image_and_notes_do_not_name_one(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([MOONDREAM, "--prompt", QUESTION, "--task", "query", "--length", "long", "--json", *HOW]) == 0
    captured = capsys.readouterr()
    answer = json.loads(captured.out)
    assert (answer["image"], answer["text"], answer["grounding"]["images"]) == (None, ANSWER, [])
    assert captured.err.endswith("note: this task does not use --length\n")


@pytest.mark.parametrize(
    ("checkpoint", "options", "said"),
    [
        (MOONDREAM, ["--task", "detect", "--label", "dog", "--prompt", "?"], "needs an image for the task 'detect'"),
        (MOONDREAM, ["--task", "query", "--region", "0,0,64,64"], "--region in pixels needs an image"),
        (str(ROOT / "miniatures" / "blip-large"), [], "BLIP needs an image"),
    ],
)
def test_what_needs_an_image_is_bad_input(
    checkpoint: str, options: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([checkpoint, "--prompt", "why?", *options, *HOW]) == 2
    assert said in capsys.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize(
    ("options", "said"),
    [([], "name an image"), (["--prompt", " "], "name an image"), (["--prompt", "?", "--draw", "x.png"], "--draw")],
)
def test_without_an_image_there_must_be_a_question_and_no_drawing(
    options: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        main([MOONDREAM, *options])
    assert caught.value.code == 2
    assert said in capsys.readouterr().err
