"""Older weights: the prompts of their revision, and what it cannot do."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.vlm.models.moondream2.driver import DATA, golden_image
from vlm.checkpoint.files import Checkpoint
from vlm.errors import CheckpointError, InvalidRequest
from vlm.models.moondream2.locations import LocationIds
from vlm.models.moondream2.processor import Moondream2Processor
from vlm.models.moondream2.revisions import REVISIONS, read_config
from vlm.models.moondream2.vocabulary import Ids
from vlm.types import Point, Request, Task

OLDER = [name for name in REVISIONS if name != "2025-06-21"]
PNG = golden_image("small_224x160")
LONGEST = 1023


def ids_of(revision: str) -> Ids:
    return Ids.of(read_config({"config": {"revision": revision}}).section("tokenizer"))


def folder_of(folder: Path, revision: str) -> Checkpoint:
    """The small model as if it were older, with a tokenizer whose only special token is its last id."""
    shutil.copytree(DATA, folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns("*.safetensors", "images"))
    config = json.loads((DATA / "config.json").read_text("utf-8"))
    config["config"] |= {"revision": revision, "tokenizer": older_ids(config["config"]["tokenizer"])}
    (folder / "config.json").write_text(json.dumps(config))
    tokenizer = json.loads((DATA / "tokenizer.json").read_text("utf-8"))
    tokenizer["added_tokens"] = [{**tokenizer["added_tokens"][0], "id": LONGEST}]
    names = {token: name for name, token in tokenizer["model"]["vocab"].items()}
    names[0], names[LONGEST] = names[LONGEST], names[0]
    tokenizer["model"] |= {"vocab": {name: token for token, name in names.items()}, "merges": []}
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    return Checkpoint.open(folder)


def older_ids(tokenizer: dict[str, Any]) -> dict[str, Any]:
    """Ids that the small tokenizer has; all else is the revision's."""
    templates = tokenizer["templates"] | {"query": {"prefix": [429], "suffix": [34]}}
    return {"bos_id": LONGEST, "eos_id": LONGEST, "query_text": "query", "templates": templates}


def test_an_empty_config_means_the_published_revision() -> None:
    assert (
        ids_of("2025-06-21")
        == Ids.of(read_config({}).section("tokenizer"))
        == Ids.of(read_config({"config": {}}).section("tokenizer"))
    )


@pytest.mark.parametrize("name", OLDER)
def test_older_revisions_begin_and_end_with_codegens_end_of_text(name: str) -> None:
    ids = ids_of(name)
    assert (ids.bos, ids.eos, ids.can_reason) == (50256, 50256, False)
    assert ids.captions["normal"] == (198, 198, 24334, 1159, 25)
    assert ids.query == ((198, 198, 24361, 25), (198, 198, 33706, 25))


def test_only_the_first_has_even_sizes_and_no_long_captions() -> None:
    even = [name for name in REVISIONS if LocationIds.of(read_config({"config": {"revision": name}})).even_sizes]
    assert even == ["2025-01-09"] == [name for name in REVISIONS if not ids_of(name).captions["long"]]


@pytest.mark.parametrize(("name", "space"), [("2025-01-09", ""), ("2025-03-27", " "), ("2025-04-14", " ")])
def test_text_is_put_after_a_space_or_not(tmp_path: Path, name: str, space: str) -> None:
    processor = Moondream2Processor.from_checkpoint(folder_of(tmp_path, name))
    encode = processor.vocabulary.encode
    question = processor.prepare(Request(PNG, task=Task("query", text="dog")))
    assert question.prompt_ids == (429, *encode(f"{space}dog"), 34)
    label = processor.prepare(Request(PNG, task=Task("detect", labels=("dog",))))
    assert label.prompt_ids == (1, 589, 665, 2, *encode(f"{space}dog"), 3)
    [found] = processor.parse([1024, 1025, 3000], label, finished=False).detections
    assert found.label == "dog"


@pytest.mark.parametrize("name", OLDER)
def test_what_is_newer_is_refused(tmp_path: Path, name: str) -> None:
    processor = Moondream2Processor.from_checkpoint(folder_of(tmp_path, name))
    for what, task, image in (
        ("reasoning", Task("query", text="a", reasoning=True), PNG),
        ("references", Task("query", text="a", references=(Point(0, 0),)), PNG),
        ("questions without an image", Task("query", text="a"), None),
    ):
        with pytest.raises(InvalidRequest, match=f"This revision of Moondream 2 has no {what}"):
            processor.prepare(Request(image, task=task))


def test_a_length_that_the_revision_does_not_have_is_refused(tmp_path: Path) -> None:
    checkpoint = folder_of(tmp_path, "2025-01-09")
    checkpoint.config["config"]["tokenizer"]["templates"]["caption"]["long"] = []
    processor = Moondream2Processor.from_checkpoint(checkpoint)
    assert processor.prepare(Request(PNG, task=Task("caption", length="short"))).prompt_ids
    with pytest.raises(InvalidRequest, match="no long captions"):
        processor.prepare(Request(PNG, task=Task("caption", length="long")))


def test_a_newer_tokenizer_beside_older_weights_is_refused(tmp_path: Path) -> None:
    folder_of(tmp_path, "2025-04-14")
    shutil.copy(DATA / "tokenizer.json", tmp_path)
    with pytest.raises(CheckpointError, match="use that of their own repository"):
        Moondream2Processor.from_checkpoint(Checkpoint.open(tmp_path))


def test_an_unknown_revision_is_an_error() -> None:
    with pytest.raises(CheckpointError, match="'2024-08-26' is not known here; it may be 2025-06-21"):
        read_config({"config": {"revision": "2024-08-26"}})
