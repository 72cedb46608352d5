"""A run in two parts ends in the same bits as a run in one; states are whole or absent; the loss goes down."""

from __future__ import annotations

import itertools
import json
import shutil
from pathlib import Path

import pytest
import torch
from PIL import Image

from tests.training.recipes import trainer
from training.init import neighbours
from training.loss_curve import draw_curve
from training.losses import IGNORED, Places, padded, token_loss
from training.train import PACKAGES, main
from training.trainer import CURVE, PROGRESS, STATE, Schedule, Trainer
from vlm.errors import CheckpointError


def silent(line: str) -> None:
    """Nobody listens."""


def weights(one: Trainer) -> dict[str, torch.Tensor]:
    return {name: value.detach().clone() for name, value in one.parameters.items()}


@pytest.mark.parametrize("name", PACKAGES)
def test_a_resumed_run_is_bit_equal_to_one_without_interruption(name: str, tmp_path: Path) -> None:
    whole = trainer(name, tmp_path / "whole")
    first = weights(whole)
    whole.run(1, silent)
    shutil.copytree(tmp_path / "whole", tmp_path / "parts")
    whole.run(2, silent)
    resumed = trainer(name, tmp_path / "parts")
    assert resumed.resume()
    assert resumed.step == 1
    resumed.run(2, silent)
    assert all(torch.equal(value, weights(resumed)[key]) for key, value in weights(whole).items())
    moved = [key for key, value in weights(whole).items() if not torch.equal(value, first[key])]
    assert len(moved) > 0.9 * len(first)


def test_progress_is_logged_drawn_and_forgotten_with_the_steps_that_were_lost(tmp_path: Path) -> None:
    one = trainer("vision", tmp_path)
    lines: list[str] = []
    one.run(2, lines.append, every=1, save_every=100)
    one.train_step()
    one._log({"loss": 1.0}, 0.1, lines.append)  # told, but not saved
    assert len((tmp_path / PROGRESS).read_text().splitlines()) == 3
    again = trainer("vision", tmp_path)
    again.resume()
    assert [json.loads(line)["step"] for line in (tmp_path / PROGRESS).read_text().splitlines()] == [1, 2]
    assert lines[0].startswith("step 1/10")
    assert "min left" in lines[0]
    with Image.open(tmp_path / CURVE) as curve:
        assert curve.format == "PNG"


def test_a_state_of_another_vocabulary_is_refused(tmp_path: Path) -> None:
    one = trainer("vision", tmp_path)
    one.trainable.fingerprint = "of another one"  # type: ignore[misc]  # a property of the protocol, here an attribute
    one.save()
    with pytest.raises(CheckpointError, match="another vocabulary"):
        trainer("vision", tmp_path).resume()


def test_without_a_state_there_is_nothing_to_resume(tmp_path: Path) -> None:
    one = trainer("vision", tmp_path)
    assert not one.resume()
    assert one.step == 0


def test_a_state_is_not_overwritten_by_a_fresh_start(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / STATE).touch()
    assert main(["vision", "--folder", str(tmp_path)]) == 2
    assert "--resume" in capsys.readouterr().err


def test_the_loss_goes_down(tmp_path: Path) -> None:
    one = trainer("vision", tmp_path)
    losses = [one.train_step()["loss"] for _ in range(8)]
    assert losses[-1] < losses[0]


def test_the_rate_warms_up_stays_and_cools_down() -> None:
    schedule = Schedule(learning_rate=1.0, steps=1000)
    rates = [schedule.at(step) for step in range(1000)]
    assert rates[0] == pytest.approx(0.005)
    assert set(rates[200:600]) == {1.0}
    assert all(later <= earlier for earlier, later in itertools.pairwise(rates[600:]))
    assert rates[-1] == pytest.approx(0.01)


def test_places_near_the_true_one_are_nearly_right() -> None:
    places = Places(first=4, targets=neighbours(10, 1.0), weight=0.5)
    targets = torch.tensor([1, 9])  # a word, and the place 5

    def loss(place: int) -> float:
        logits = torch.zeros(2, 14)
        logits[0, 1] = logits[1, 4 + place] = 8.0
        return float(token_loss(logits, targets, places)[0])

    assert loss(5) < loss(6) < loss(9)
    assert token_loss(torch.eye(14)[[1, 9]] * 9, targets, places)[1] == {"words": 1.0, "places": 1.0}


def test_rows_are_filled_up() -> None:
    assert padded([[1, 2], [3]], IGNORED).tolist() == [[1, 2], [3, IGNORED]]


def test_a_curve_of_one_point_can_be_drawn(tmp_path: Path) -> None:
    draw_curve([{"step": 1, "loss": 2.0}], tmp_path / "curve.png")
    assert (tmp_path / "curve.png").stat().st_size > 0
