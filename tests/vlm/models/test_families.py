"""Families are found by looking at the folders of ``vlm.models``; one that is not finished leaves the others alone."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.oracle import MINIATURES
from vlm import models
from vlm.checkpoint.files import Checkpoint
from vlm.errors import CheckpointError
from vlm.loading import families, find_family
from vlm.models.cards import cards

BLIP = Checkpoint.open(MINIATURES / "blip-large")
NAMES = [name for name, _ in families()]

AddFamily = Callable[..., Path]


@pytest.fixture
def add_family(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AddFamily:
    """Adds a folder beside those of ``vlm.models``, with files of the given text."""
    monkeypatch.setattr(models, "__path__", [*models.__path__, str(tmp_path / "models")])
    for name in [name for name in sys.modules if name.startswith("vlm.models.half")]:
        monkeypatch.delitem(sys.modules, name)

    def add(**files: str) -> Path:
        folder = tmp_path / "models" / "half"
        folder.mkdir(parents=True)
        for name, text in files.items():
            (folder / f"{name}.py").write_text(text)
        return folder

    return add


def of_type(folder: Path, model_type: str) -> Checkpoint:
    """A checkpoint that only says what it is."""
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"model_type": model_type}))
    return Checkpoint.open(folder)


@pytest.mark.parametrize(
    ("files", "missing"),
    [
        ({"__init__": ""}, "no model.py"),
        ({"model": "FAMILY = 1 / 0"}, "no __init__.py"),
        ({"vision": ""}, "no __init__.py and no model.py"),
    ],
)
def test_an_unfinished_folder_is_skipped_and_named(
    add_family: AddFamily, caplog: pytest.LogCaptureFixture, files: dict[str, str], missing: str
) -> None:
    add_family(**files)
    assert [name for name, _ in families()] == NAMES
    assert caplog.messages == [f"vlm/models/half is not a model family yet: it has {missing}"]
    assert find_family(BLIP)[0] == "blip"


def test_a_folder_without_sources_is_not_mentioned(add_family: AddFamily, caplog: pytest.LogCaptureFixture) -> None:
    (add_family() / "__pycache__").mkdir()
    assert [name for name, _ in families()] == NAMES
    assert caplog.messages == []


BROKEN = [
    ("def", "SyntaxError: "),
    ("import no_such_library", "ModuleNotFoundError: No module named 'no_such_library'"),
    ("from vlm.models.base import NoSuchName", "ImportError: cannot import name 'NoSuchName'"),
    ("1 / 0", "ZeroDivisionError: division by zero"),
    ("", "AttributeError: module 'vlm.models.half.model' has no attribute 'FAMILY'"),
    ("FAMILY = 'half'", "TypeError: FAMILY is a str, not a Family"),
]


@pytest.mark.parametrize(("model", "reason"), BROKEN)
def test_a_broken_model_leaves_the_others_alone_and_is_named(
    add_family: AddFamily, caplog: pytest.LogCaptureFixture, model: str, reason: str
) -> None:
    add_family(__init__="", model=model)
    assert find_family(BLIP)[0] == "blip"
    assert [name for name, _ in families()] == NAMES
    [message] = caplog.messages
    assert message.startswith(f"The model family vlm/models/half is left out: {reason}")


@pytest.mark.parametrize(("model", "reason"), BROKEN)
def test_an_unknown_model_type_names_the_family_that_could_not_be_asked(
    add_family: AddFamily, tmp_path: Path, model: str, reason: str
) -> None:
    add_family(__init__="", model=model)
    with pytest.raises(CheckpointError) as caught:
        find_family(of_type(tmp_path / "checkpoint", "half"))
    assert "has model_type 'half'; this project serves blip, " in caught.value.message
    assert f" vlm/models/half could not be imported: {reason}" in caught.value.message
    assert isinstance(caught.value.__cause__, Exception), "whoever writes the family sees the traceback"


@pytest.mark.parametrize(
    "files",
    [
        {"__init__": "raise OSError('no such disk')", "card": "CARDS = ()"},
        {"__init__": "", "card": "CARDS = 1 / 0"},
        {"__init__": "", "card": "import nothing_of_this_name"},
        {"__init__": "", "card": ""},
    ],
)
def test_a_broken_card_is_named_and_leaves_the_others(
    add_family: AddFamily, caplog: pytest.LogCaptureFixture, files: dict[str, str]
) -> None:
    known = set(cards())
    add_family(**files)
    cards.cache_clear()
    try:
        assert set(cards()) == known
        assert "vlm/models/half has no usable card.py" in caplog.text
    finally:
        cards.cache_clear()
