"""Opening checkpoints: real files where possible, and one clear error for each way in which a folder can be unfit."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub.utils._paths import filter_repo_objects
from safetensors.torch import load_file, save_file

from vlm.checkpoint import progress
from vlm.checkpoint.files import INDEX, Checkpoint
from vlm.checkpoint.hub import HUB_FILES, NESTED
from vlm.errors import CheckpointError

ROOT = Path(__file__).parents[3]
MINIATURES = ROOT / "miniatures"
COMMIT = "0123456789abcdef0123456789abcdef01234567"

Break = Callable[[Path], object]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A small checkpoint of the test's own: three tensors and every file that is read."""
    path = tmp_path / "checkpoint"
    path.mkdir()
    (path / "config.json").write_text('{"model_type": "tiny", "width": 4}')
    shutil.copy(MINIATURES / "blip-large" / "tokenizer.json", path)
    save_file(weights(), path / "model.safetensors")
    return path


def weights() -> dict[str, torch.Tensor]:
    return {"a": torch.arange(6.0).reshape(2, 3), "b": torch.ones(4, dtype=torch.float16), "c": torch.tensor([7])}


def shard(folder: Path) -> None:
    """Rewrite the weights as two shards and their index."""
    (folder / "model.safetensors").unlink()
    save_file({"a": weights()["a"]}, folder / "first.safetensors")
    save_file({name: weights()[name] for name in "bc"}, folder / "second.safetensors")
    write_index(folder, {"a": "first.safetensors", "b": "second.safetensors", "c": "second.safetensors"})


def write_index(folder: Path, weight_map: object) -> None:
    (folder / "model.safetensors").unlink(missing_ok=True)
    (folder / INDEX).write_text(json.dumps({"weight_map": weight_map}))


def read_all(folder: Path) -> None:
    """Use everything that a model load uses."""
    checkpoint = Checkpoint.open(folder)
    assert checkpoint.model_type
    checkpoint.tokenizer()
    for _ in checkpoint.tensors():
        pass


@pytest.mark.parametrize("name", ["blip-large", "florence-2-base"])
def test_a_miniature_opens_with_all_its_parts(name: str) -> None:
    checkpoint = Checkpoint.open(MINIATURES / name)
    expected = load_file(MINIATURES / name / "model.safetensors")
    found = dict(checkpoint.tensors())
    assert checkpoint.folder == MINIATURES / name
    assert checkpoint.revision is None
    assert checkpoint.config == json.loads((MINIATURES / name / "config.json").read_text())
    assert checkpoint.generation["bos_token_id"] == checkpoint.config["text_config"]["bos_token_id"]
    assert set(checkpoint.tensor_names()) == set(expected) == set(found)
    assert all(torch.equal(found[key], value) and found[key].dtype == value.dtype for key, value in expected.items())


def test_the_source_may_be_a_string_and_is_remembered(folder: Path) -> None:
    checkpoint = Checkpoint.open(str(folder))
    assert (checkpoint.source, checkpoint.model_type) == (str(folder), "tiny")


def test_optional_files_may_be_absent(folder: Path) -> None:
    checkpoint = Checkpoint.open(folder)
    assert checkpoint.generation == {}
    assert checkpoint.json("processor_config.json") is None
    with pytest.raises(CheckpointError, match=re.escape(f"processor_config.json in {folder} is missing")):
        checkpoint.require_json("processor_config.json")


def test_shards_give_the_same_tensors_as_one_file(folder: Path) -> None:
    whole = dict(Checkpoint.open(folder).tensors())
    shard(folder)
    checkpoint = Checkpoint.open(folder)
    parts = dict(checkpoint.tensors())
    assert checkpoint.tensor_names() == ("a", "b", "c")
    assert all(torch.equal(parts[name], tensor) for name, tensor in whole.items())


def test_progress_counts_up_to_the_whole_of_each_file(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "INTERVAL_S", 0)
    shard(folder)
    lines: list[str] = []
    assert len(list(Checkpoint.open(folder, report=lines.append).tensors())) == 3
    assert lines == [
        "loading first.safetensors: 1 of 1 tensors",
        "loading second.safetensors: 1 of 2 tensors",
        "loading second.safetensors: 2 of 2 tensors",
    ]


def test_a_short_load_reports_no_progress() -> None:
    lines: list[str] = []
    assert list(Checkpoint.open(MINIATURES / "florence-2-base", report=lines.append).tensors())
    assert lines == []


def test_the_tokenizer_neither_cuts_nor_pads(folder: Path) -> None:
    stored = json.loads((folder / "tokenizer.json").read_text())
    stored["truncation"] = {"direction": "Right", "max_length": 4, "strategy": "LongestFirst", "stride": 0}
    stored["padding"] = {
        "strategy": {"Fixed": 32}, "direction": "Right", "pad_to_multiple_of": None,
        "pad_id": 0, "pad_type_id": 0, "pad_token": "[PAD]",
    }  # fmt: skip
    (folder / "tokenizer.json").write_text(json.dumps(stored))
    ids = Checkpoint.open(folder).tokenizer().encode("a picture of a red circle").ids
    assert 4 < len(ids) < 32


def test_each_call_gives_a_tokenizer_of_its_own(folder: Path) -> None:
    checkpoint = Checkpoint.open(folder)
    checkpoint.tokenizer().add_special_tokens(["<extra>"])
    assert checkpoint.tokenizer().token_to_id("<extra>") is None


UNFIT: list[tuple[str, Break, str]] = [
    ("no config", lambda f: (f / "config.json").unlink(), "config.json in {} is missing"),
    ("config no JSON", lambda f: (f / "config.json").write_text("{"), "config.json in {} is not readable JSON"),
    ("config not UTF-8", lambda f: (f / "config.json").write_bytes(b"\xff\xfe{}"), "config.json in {} is not readable"),
    ("config nested", lambda f: (f / "config.json").write_text("[" * 100_000), "config.json in {} is not readable"),
    ("config a list", lambda f: (f / "config.json").write_text("[]"), "config.json in {} holds a JSON list"),
    (
        "no model type",
        lambda f: (f / "config.json").write_text("{}"),
        "config.json in {} has no text under 'model_type'",
    ),
    ("no tokenizer", lambda f: (f / "tokenizer.json").unlink(), "tokenizer.json in {} is missing"),
    (
        "tokenizer no JSON",
        lambda f: (f / "tokenizer.json").write_text("#"),
        "tokenizer.json in {} is not readable JSON",
    ),
    ("tokenizer odd", lambda f: (f / "tokenizer.json").write_text("{}"), "tokenizer.json in {} is not a tokenizer"),
    ("no weights", lambda f: (f / "model.safetensors").unlink(), "{} has neither model.safetensors nor"),
    ("empty weights", lambda f: (f / "model.safetensors").write_bytes(b""), "model.safetensors in {} is cut short"),
    (
        "noise",
        lambda f: (f / "model.safetensors").write_bytes(b"\x93NUMPY" * 99),
        "model.safetensors in {} is cut short",
    ),
    ("index a list", lambda f: write_index(f, ["a"]), INDEX + " in {} has no 'weight_map'"),
    ("index of numbers", lambda f: write_index(f, {"a": 1}), INDEX + " in {} has no 'weight_map'"),
    ("shard outside", lambda f: write_index(f, {"a": "../x.safetensors"}), INDEX + " in {} names '../x.safetensors'"),
    ("shard a pickle", lambda f: write_index(f, {"a": "x.bin"}), INDEX + " in {} names 'x.bin'"),
    ("shard missing", lambda f: write_index(f, {"a": "x.safetensors"}), "x.safetensors in {} is missing, but"),
]


@pytest.mark.parametrize(("spoil", "message"), [case[1:] for case in UNFIT], ids=[case[0] for case in UNFIT])
def test_an_unfit_folder_gives_one_error_that_names_file_and_folder(folder: Path, spoil: Break, message: str) -> None:
    read_all(folder)
    spoil(folder)
    with pytest.raises(CheckpointError) as caught:
        read_all(folder)
    assert caught.value.message.startswith(message.format(folder))
    assert re.search("Fetch|use|[Cc]onvert", caught.value.message), "says what to do"


@pytest.mark.parametrize("share", [0.01, 0.5, 0.99])
def test_a_cut_file_is_found_wherever_it_was_cut(folder: Path, share: float) -> None:
    path = folder / "model.safetensors"
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    checkpoint = Checkpoint.open(folder)
    for read in (checkpoint.tensor_names, lambda: list(checkpoint.tensors())):
        with pytest.raises(CheckpointError, match="is cut short or damaged"):
            read()


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "pytorch_model-00001-of-00002.bin"])
def test_pickles_are_refused_and_never_opened(folder: Path, name: str) -> None:
    (folder / "model.safetensors").unlink()
    (folder / name).write_bytes(b"cos\nsystem\n(S'false'\ntR.")
    checkpoint = Checkpoint.open(folder)
    with pytest.raises(CheckpointError) as caught:
        checkpoint.tensors()
    assert name in caught.value.message
    assert "weights_only=True" in caught.value.message


def test_the_advice_for_pickles_works(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    torch.save(weights(), folder / "pytorch_model.bin")
    with pytest.raises(CheckpointError) as caught:
        Checkpoint.open(folder).tensors()
    code = re.search('python -c "(.*)"', caught.value.message)
    assert code is not None
    subprocess.run([sys.executable, "-c", code.group(1)], cwd=folder, check=True, capture_output=True)
    assert torch.equal(dict(Checkpoint.open(folder).tensors())["a"], weights()["a"])


def test_missing_shards_are_found_before_anything_is_read(folder: Path) -> None:
    shard(folder)
    (folder / "second.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"second\.safetensors"):
        Checkpoint.open(folder).tensors()


@pytest.mark.parametrize("source", ["/no/such/folder", "nowhere", "a/b/c", Path("org/name"), "~/no/such", "", "../up"])
def test_what_is_neither_folder_nor_hub_id_is_named(source: str | Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError) as caught:
        Checkpoint.open(source if source != "" else tmp_path / "none")
    assert "no folder" in caught.value.message


def test_a_file_is_not_a_checkpoint(folder: Path) -> None:
    with pytest.raises(CheckpointError, match="is a file; name the checkpoint's folder"):
        Checkpoint.open(folder / "config.json")


def test_a_folder_never_stands_in_for_a_pinned_revision(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder.parent / "organisation").mkdir()
    shutil.copytree(folder, folder.parent / "organisation" / "name")
    monkeypatch.chdir(folder.parent)
    assert Checkpoint.open("organisation/name").revision is None
    for source in ("organisation/name", folder):
        with pytest.raises(
            CheckpointError, match=r"is a folder, which has no revision\. To load the folder, leave"
        ) as caught:
            Checkpoint.open(source, COMMIT)
        assert caught.value.param == "revision"


@pytest.mark.parametrize(
    "revision",
    [None, "", "main", "v1.0", "ABC", "0123abc", "a" * 39, "a" * 41, "a" * 64, "a" * 40 + "\n", "A" * 40, "g" * 40],
)
def test_a_hub_id_needs_a_pinned_revision(revision: str | None) -> None:
    with pytest.raises(CheckpointError, match="pin a full commit id"):
        Checkpoint.open("organisation/no-such-model", revision)


def test_only_data_is_fetched_from_the_hub() -> None:
    repository = [
        "config.json", "model.safetensors", "model-00001-of-00002.safetensors", INDEX, "tokenizer.json", "vocab.txt",
        "merges.txt", "sentencepiece.bpe.model", "pytorch_model.bin", "modeling_x.py", "tf_model.h5", "README.md",
        "onnx/config.json", "onnx/model.safetensors", "training_args.pt", "flax_model.msgpack",
    ]  # fmt: skip
    fetched = list(filter_repo_objects(repository, allow_patterns=list(HUB_FILES), ignore_patterns=[NESTED]))
    assert fetched == repository[:8]


@pytest.mark.parametrize("offline", [False, True])
def test_the_download_is_asked_for_exactly_that(
    folder: Path, monkeypatch: pytest.MonkeyPatch, *, offline: bool
) -> None:
    asked: dict[str, Any] = {}

    def snapshot_download(repo_id: str, **settings: object) -> str:
        asked.update(settings, repo_id=repo_id)
        return str(folder)

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", offline)
    lines: list[str] = []
    checkpoint = Checkpoint.open("org/name", COMMIT, lines.append)
    assert asked == {
        "repo_id": "org/name",
        "revision": COMMIT,
        "allow_patterns": list(HUB_FILES),
        "ignore_patterns": [NESTED],
        "local_files_only": offline,
    }
    assert (checkpoint.folder, checkpoint.source, checkpoint.revision) == (folder, "org/name", COMMIT)
    assert lines == [f"fetching org/name at {COMMIT}"]


def test_offline_a_cached_repository_opens(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    snapshot = tmp_path / "hub" / "models--org--name" / "snapshots" / COMMIT
    shutil.copytree(folder, snapshot)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    checkpoint = Checkpoint.open("org/name", COMMIT)
    assert checkpoint.folder == snapshot
    assert checkpoint.tensor_names() == ("a", "b", "c")


def test_offline_an_absent_repository_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    with pytest.raises(CheckpointError) as caught:
        Checkpoint.open("org/name", COMMIT)
    assert all(part in caught.value.message for part in ("org/name", COMMIT, "local folder", "HF_HOME"))


def test_importing_the_module_loads_neither_torch_nor_the_hub() -> None:
    code = "import sys, vlm.checkpoint.files; assert not {'torch', 'huggingface_hub', 'safetensors'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)
