"""``gigarouter fetch`` on a hub's cache of the exact layout, made of the miniatures; nothing is downloaded."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from gigarouter.fetch import BAD_INPUT, card_of, known, main
from vlm.errors import CheckpointError

MINIATURES = Path(__file__).parents[2] / "miniatures"


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The cache of a machine that is offline; empty."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path / "hub"


def put(cache: Path, name: str, revision: str | None = None) -> Path:
    """Put a miniature where the model's published files would be."""
    card = card_of(name)
    assert card.hugging_face_id is not None
    repository = "models--" + card.hugging_face_id.replace("/", "--")
    folder = cache / repository / "snapshots" / (revision or card.releases[0].revision)
    shutil.copytree(MINIATURES / name, folder)
    return folder


def test_models_are_found_by_name_by_alias_and_by_hub_id() -> None:
    assert {card.name for card in known()} >= {"blip-large", "florence-2-base", "kosmos-2", "moondream-2"}
    for name in ("florence-2-base", "microsoft/Florence-2-base"):
        assert card_of(name).name == "florence-2-base"
    with pytest.raises(CheckpointError, match="florence-2-base"):
        card_of("florence-2-bse")


def test_files_that_are_not_the_published_ones_fail(cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    put(cache, "moondream-2")
    assert main(["moondream-2"]) == 1
    out = capsys.readouterr().out
    assert "ok       folder" in out
    assert "FAILED   sha256" in out
    assert "published were" in out


def test_files_of_another_revision_are_not_compared_with_the_published_ones(
    cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    put(cache, "florence-2-base", "a" * 40)
    assert main(["florence-2-base", "--revision", "a" * 40, "--json"]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert {one["model"] for one in lines} == {"florence-2-base"}
    assert "FAILED" not in {one["state"] for one in lines}


def test_a_cut_file_fails(cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = put(cache, "blip-large")
    weights = folder / "model.safetensors"
    content = weights.read_bytes()
    weights.unlink()
    weights.write_bytes(content[: len(content) // 2])
    assert main(["blip-large"]) == 1
    assert "FAILED" in capsys.readouterr().out


def test_what_is_not_there_fails_with_what_to_do(cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["kosmos-2"]) == 1
    assert "HF_HOME" in capsys.readouterr().out


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("--all", "kosmos-2"),
        ("kosmos-2", "blip-large", "--revision", "a" * 40),
        ("kosmos-2", "--revision", "main"),
        ("kosmos-2", "--revision", "A" * 40),
    ],
)
def test_a_command_line_that_makes_no_sense_is_refused(arguments: tuple[str, ...]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == BAD_INPUT


def test_an_unknown_model_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["kosmos-3"]) == BAD_INPUT
    assert "Did you mean 'kosmos-2'?" in capsys.readouterr().err
