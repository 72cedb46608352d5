"""A resumed run ends with the same bits as an uninterrupted one, and the loss goes down."""

from __future__ import annotations

import itertools
import json
import shutil
from pathlib import Path

import pytest
import torch
from PIL import Image

from tests.training.recipes import trainer
from training.init import gaussian_targets
from training.loss_curve import draw_curve
from training.losses import IGNORED, Locations, padded, token_loss
from training.train import PACKAGES, main
from training.trainer import CURVE, PROGRESS, STATE, Schedule, Trainer
from vlm.errors import CheckpointError


def silent(line: str) -> None:
    """Report nothing."""


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


def test_the_log_and_the_curve_follow_the_saved_steps(tmp_path: Path) -> None:
    one = trainer("vision", tmp_path)
    lines: list[str] = []
    one.run(2, lines.append, every=1, save_every=100)
    one.train_step()
    one._log({"loss": 1.0}, 0.1, lines.append)  # logged, but not saved
    assert len((tmp_path / PROGRESS).read_text().splitlines()) == 3
    again = trainer("vision", tmp_path)
    again.resume()
    assert [json.loads(line)["step"] for line in (tmp_path / PROGRESS).read_text().splitlines()] == [1, 2]
    assert lines[0].startswith("step 1/10")
    assert "min left" in lines[0]
    with Image.open(tmp_path / CURVE) as curve:
        assert curve.format == "PNG"


def test_a_state_of_another_vocabulary_is_rejected(tmp_path: Path) -> None:
    one = trainer("vision", tmp_path)
    one.trainable.fingerprint = "of another one"  # type: ignore[misc]  # a property of the protocol, here an attribute
    one.save()
    with pytest.raises(CheckpointError, match="another vocabulary"):
        trainer("vision", tmp_path).resume()


def test_resume_without_a_state_does_nothing(tmp_path: Path) -> None:
    one = trainer("vision", tmp_path)
    assert not one.resume()
    assert one.step == 0


def test_a_state_is_not_overwritten_without_resume(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / STATE).touch()
    assert main(["vision", "--folder", str(tmp_path)]) == 2
    assert "--resume" in capsys.readouterr().err


def test_the_loss_goes_down(tmp_path: Path) -> None:
    one = trainer("vision", tmp_path)
    losses = [one.train_step()["loss"] for _ in range(8)]
    assert losses[-1] < losses[0]


def test_the_learning_rate_warms_up_stays_and_decays() -> None:
    schedule = Schedule(learning_rate=1.0, steps=1000)
    rates = [schedule.at(step) for step in range(1000)]
    assert rates[0] == pytest.approx(0.005)
    assert set(rates[200:600]) == {1.0}
    assert all(later <= earlier for earlier, later in itertools.pairwise(rates[600:]))
    assert rates[-1] == pytest.approx(0.01)


def test_locations_near_the_right_one_have_a_lower_loss() -> None:
    locations = Locations(first=4, targets=gaussian_targets(10, 1.0), weight=0.5)
    targets = torch.tensor([1, 9])  # a word, and location 5

    def loss(location: int) -> float:
        logits = torch.zeros(2, 14)
        logits[0, 1] = logits[1, 4 + location] = 8.0
        return float(token_loss(logits, targets, locations)[0])

    assert loss(5) < loss(6) < loss(9)
    assert token_loss(torch.eye(14)[[1, 9]] * 9, targets, locations)[1] == {"words": 1.0, "locations": 1.0}


def test_rows_are_padded() -> None:
    assert padded([[1, 2], [3]], IGNORED).tolist() == [[1, 2], [3, IGNORED]]


def test_a_curve_of_one_point_is_written(tmp_path: Path) -> None:
    draw_curve([{"step": 1, "loss": 2.0}], tmp_path / "curve.png")
    assert (tmp_path / "curve.png").stat().st_size > 0
