"""The benchmark runs, compares token for token, and says clearly what it cannot measure."""

from __future__ import annotations

import json
from collections.abc import Sequence

import pytest

from tests.oracle import MINIATURES
from vlm import bench
from vlm.bench import Plan, main
from vlm.engine.engine import Engine
from vlm.image.sample import sample_image
from vlm.types import Completion


def rows(capsys: pytest.CaptureFixture[str]) -> list[dict[str, object]]:
    found: list[dict[str, object]] = json.loads(capsys.readouterr().out)["rows"]
    return found


def test_a_miniature_beside_transformers(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--requests", "4", "--tokens", "6", "--concurrency", "1,4", "--json"]
    assert main([str(MINIATURES / "blip-large"), *arguments]) == 0
    reference, *ours = rows(capsys)
    assert (reference["name"], reference["ratio"]) == ("transformers", 1.0)
    assert [row["name"] for row in ours] == ["engine c=1", "engine c=4"]
    assert [row["equal"] for row in ours] == ["4/4", "4/4"]


@pytest.mark.parametrize("family", ["blip", "florence2"])
def test_synthetic_weights_without_the_reference(family: str, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--config", "tiny", "--no-reference", "--requests", "3", "--tokens", "4", "--concurrency", "2"]
    assert main([family, *arguments]) == 0
    out = capsys.readouterr().out
    assert f"family={family}" in out
    assert "engine c=2" in out


def test_a_beam_search_beside_that_of_transformers(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--requests", "3", "--tokens", "8", "--concurrency", "3", "--beams", "3", "--json"]
    assert main([str(MINIATURES / "florence-2-base"), *arguments]) == 0
    assert [row["equal"] for row in rows(capsys)] == [None, "3/3"]


def test_a_model_that_transformers_does_not_have_runs_alone(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--requests", "3", "--tokens", "4", "--concurrency", "3", "--size", "90x60", "--one-image"]
    assert main(["moondream2", "--config", "tiny", *arguments]) == 0
    captured = capsys.readouterr()
    assert "engine c=3" in captured.out
    assert "left out: transformers has no class" in captured.err


@pytest.mark.parametrize("one_image", [False, True])
def test_only_one_image_is_encoded_before_it_is_measured(monkeypatch: pytest.MonkeyPatch, one_image: bool) -> None:
    runs: list[list[Completion]] = []
    answer = bench._answer

    async def kept(engine: Engine, images: Sequence[bytes], plan: Plan, level: int) -> list[Completion]:
        runs.append(await answer(engine, images, plan, level))
        return runs[-1]

    monkeypatch.setattr(bench, "_answer", kept)
    arguments = ["--no-reference", "--requests", "2", "--tokens", "1", "--concurrency", "2"]
    assert main(["blip", "--config", "tiny", *arguments, *(["--one-image"] if one_image else [])]) == 0
    warm_up, measured = runs
    assert [one.usage.cached_tokens > 0 for one in (*warm_up, *measured)] == [False, one_image, one_image]


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["no-such-folder"],
        ["no-such-family", "--config", "real"],
        ["kosmos2", "--config", "tiny", "--no-reference", "--prompt", "long " * 1000],
    ],
)
def test_a_wrong_argument_is_reported_in_one_line(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 2
    assert capsys.readouterr().err.splitlines()[-1].startswith("error: ")


@pytest.mark.parametrize("levels", ["x", "0", "1,,2"])
def test_a_bad_concurrency_is_a_usage_error(levels: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["blip", "--config", "tiny", "--concurrency", levels])
    assert "--concurrency" in capsys.readouterr().err


def test_images_differ_and_repeat() -> None:
    assert sample_image(1) == sample_image(1)
    assert sample_image(1) != sample_image(2)
