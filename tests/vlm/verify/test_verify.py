"""Sound checkpoints pass. Every fault is found and named, and those that prevent serving set the exit status."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from tests.oracle import MINIATURES, ask_all
from vlm.checkpoint.files import Checkpoint
from vlm.image.sample import sample_image
from vlm.loading import families, synthesize
from vlm.models.cards import PublishedFile, Release
from vlm.models.checks import Finding
from vlm.types import Request, Sampling
from vlm.verify import run
from vlm.verify.__main__ import main, verify
from vlm.verify.published_files import check_files, sha256
from vlm.verify.run import RunOptions, check_run
from vlm.verify.token_ids import check_token_ids

BLIP, FLORENCE, KOSMOS, MOONDREAM = (
    MINIATURES / name for name in ("blip-large", "florence-2-base", "kosmos-2", "moondream-2")
)
WEIGHTS = "model.safetensors"
ROWS = json.loads((BLIP / "config.json").read_text())["text_config"]["vocab_size"]


def found(folder: Path, how: RunOptions | None = None) -> list[Finding]:
    return list(verify(str(folder), None, how))


def failures(folder: Path) -> list[tuple[str, str]]:
    return [(finding.check, finding.detail) for finding in found(folder) if finding.state == "FAILED"]


def only_failure(folder: Path) -> tuple[str, str]:
    (one,) = failures(folder)
    return one


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of a miniature, for the test to change."""
    return Path(shutil.copytree(BLIP, tmp_path / "copy"))


def change_tensors(folder: Path, change: Callable[[dict[str, Tensor]], object]) -> None:
    tensors = load_file(folder / WEIGHTS)
    change(tensors)
    save_file(tensors, folder / WEIGHTS)


def change_json(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


@pytest.mark.parametrize("miniature", [BLIP, FLORENCE, KOSMOS], ids=lambda path: path.name)
def test_every_miniature_passes_and_answers_as_transformers_does(
    miniature: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(miniature), "--compare"]) == 0
    *lines, verdict = capsys.readouterr().out.splitlines()
    assert {line.split()[0] for line in lines} == {"ok"}
    assert any(re.match(r"ok       run .*: '\w[^']+', \d+ tokens", line) for line in lines)
    assert any(line.startswith("ok       transformers") for line in lines)
    assert verdict == f"nothing failed: {len(lines)} ok"


def test_a_miniature_that_transformers_lacks_passes_by_itself(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(MOONDREAM), "--compare"]) == 0
    *lines, verdict = capsys.readouterr().out.splitlines()
    assert any(re.match(r"ok       run .*: '\w[^']+', \d+ tokens", line) for line in lines)
    assert lines[-1].startswith("skipped  transformers    it cannot run this folder")
    assert verdict.startswith("nothing failed: ")


@pytest.mark.parametrize("name", dict(families()))
def test_a_synthetic_folder_of_every_family_passes(name: str, tmp_path: Path) -> None:
    family = dict(families())[name]
    synthesize(family, tmp_path, family.sizes["tiny"], 3)
    results = found(tmp_path)
    assert [finding for finding in results if finding.state == "FAILED"] == []
    assert results[-1] == Finding("run", "skipped", "--no-run was given")


def test_a_failure_skips_the_run_and_sets_the_exit_status(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    change_tensors(folder, lambda tensors: tensors.update(surprise=torch.zeros(1)))
    assert main([str(folder)]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[-2].split() == ["skipped", "run", "correct", "what", "failed", "first"]
    assert lines[-1].startswith("do not serve this: ")


def test_a_weight_file_cut_short(folder: Path) -> None:
    content = (folder / WEIGHTS).read_bytes()
    (folder / WEIGHTS).write_bytes(content[: len(content) // 2])
    check, detail = only_failure(folder)
    assert check == "files"
    assert "cut short or damaged" in detail
    assert Finding("tensors", "skipped", "for the same reason") in found(folder)


def test_a_missing_tensor(folder: Path) -> None:
    change_tensors(folder, lambda tensors: tensors.pop("text_decoder.cls.predictions.bias"))
    check, detail = only_failure(folder)
    assert check == "tensors"
    assert "1 missing (text_decoder.cls.predictions.bias)" in detail


def test_an_unexpected_tensor(folder: Path) -> None:
    change_tensors(folder, lambda tensors: tensors.update(surprise=torch.zeros(1)))
    assert "1 unexpected (surprise)" in only_failure(folder)[1]


def test_a_tensor_of_another_shape(folder: Path) -> None:
    name = "text_decoder.bert.embeddings.word_embeddings.weight"
    change_tensors(folder, lambda tensors: tensors.update({name: torch.zeros(100, 128)}))
    assert f"{name}: (100, 128) instead of ({ROWS}, 128)" in only_failure(folder)[1]


def test_values_that_are_not_finite(folder: Path) -> None:
    def spoil(tensors: dict[str, Tensor]) -> None:
        tensors["text_decoder.cls.predictions.bias"][[3, 5]] = torch.tensor([float("nan"), float("inf")]).half()

    change_tensors(folder, spoil)
    check, detail = only_failure(folder)
    assert check == "values"
    assert f"text_decoder.cls.predictions.bias has 2 of {ROWS} values that are NaN or infinite" in detail


def test_a_kind_of_number_that_cannot_be_loaded(folder: Path) -> None:
    name = "text_decoder.cls.predictions.bias"
    change_tensors(folder, lambda tensors: tensors.update({name: torch.zeros(ROWS, dtype=torch.int8)}))
    assert only_failure(folder) == (
        "dtypes", f"{name} is int8. Only float32, float16 and bfloat16 weights can be loaded."
    )  # fmt: skip


def test_eight_bit_floats_are_looked_at_too(folder: Path) -> None:
    name = "text_decoder.cls.predictions.bias"
    change_tensors(folder, lambda tensors: tensors.update({name: torch.zeros(ROWS).to(torch.float8_e4m3fn)}))
    assert only_failure(folder)[1].startswith(f"{name} is float8_e4m3fn")


@pytest.mark.parametrize("own", [BLIP, FLORENCE, KOSMOS], ids=lambda path: path.name)
@pytest.mark.parametrize("other", [BLIP, FLORENCE, KOSMOS], ids=lambda path: path.name)
def test_the_tokenizer_of_another_model(own: Path, other: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(own, tmp_path / "copy"))
    shutil.copy(other / "tokenizer.json", folder)
    failed = failures(folder)
    assert bool(failed) == (own != other)
    assert {check for check, _ in failed} <= {"processor", "special tokens", "added tokens", "vocabulary", "round trip"}


def test_nothing_but_a_pickle(folder: Path) -> None:
    (folder / WEIGHTS).rename(folder / "pytorch_model.bin")
    check, detail = only_failure(folder)
    assert check == "files"
    assert "only as a pickle (pytorch_model.bin), which can run code and is never opened" in detail
    assert "save_file" in detail


def test_a_pickle_beside_the_weights_is_named_and_left_alone(folder: Path) -> None:
    (folder / "pytorch_model.bin").write_bytes(b"\x80\x04.")
    assert Finding("pickles", "ok", "never opened: pytorch_model.bin") in found(folder)
    assert failures(folder) == []


def test_a_kind_of_model_that_nobody_serves(folder: Path) -> None:
    change_json(folder / "config.json", model_type="clip")
    check, detail = only_failure(folder)
    assert check == "model type"
    assert "has model_type 'clip'; this project serves " in detail


@pytest.mark.parametrize(
    ("name", "check"), [("config.json", "folder"), ("tokenizer.json", "processor"), (WEIGHTS, "files")]
)
def test_a_missing_file(name: str, check: str, folder: Path) -> None:
    (folder / name).unlink()
    failed, detail = only_failure(folder)
    assert failed == check
    assert name in detail


def test_a_missing_shard(folder: Path) -> None:
    (folder / WEIGHTS).unlink()
    index = {"weight_map": {"a": "model-00001-of-00002.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    assert "model-00001-of-00002.safetensors in" in only_failure(folder)[1]


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    assert only_failure(tmp_path / "nowhere")[0] == "folder"


def test_settings_that_cannot_be(folder: Path) -> None:
    text = json.loads((folder / "config.json").read_text())["text_config"]
    change_json(folder / "config.json", text_config={**text, "hidden_act": "swash"})
    assert only_failure(folder)[0] == "config"
    change_json(folder / "config.json", text_config={**text, "num_attention_heads": 0})
    assert "ZeroDivisionError" in only_failure(folder)[1]


def test_settings_that_contradict_each_other_are_named(folder: Path) -> None:
    change_json(folder / "config.json", vocab_size=7)
    (settings,) = (finding for finding in found(folder) if finding.check == "contradictory")
    assert settings.state == "ok"  # the model reads one of the two, and its tensors show whether it is right
    assert f"stand twice with different values (vocab_size 7, text_config.vocab_size {ROWS})" in settings.detail


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"eos_token_id": 99_999}, "eos_token_id is 99999, but ids are whole numbers from 0 to "),
        ({"eos_token_id": "</s>"}, "eos_token_id is '</s>', but ids are whole numbers"),
        ({"eos_token_id": 5}, "but the tokenizer's eos_token is '</s>', id 2"),
        ({"bos_token_id": [7]}, "but the tokenizer's bos_token is '<s>', id 0"),
        ({"pad_token_id": 0}, "pad_token_id is 0 ('<s>'), but the tokenizer's pad_token is '<pad>', id 1"),
        ({"forced_bos_token_id": 2}, "forced_bos_token_id is 2 ('</s>'), but the tokenizer's bos_token is '<s>', id 0"),
        ({"decoder_start_token_id": -1}, "decoder_start_token_id is -1, but ids are whole numbers"),
    ],
)
def test_wrong_token_ids_in_the_generation_config(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(FLORENCE, tmp_path / "copy"))
    change_json(folder / "generation_config.json", **changes)
    (note,) = (finding for finding in found(folder) if finding.state == "note")
    assert note.check == "token ids"
    assert message in note.detail
    assert "Serving does not use these ids, but generate of transformers does" in note.detail


@pytest.mark.parametrize(("token", "state"), [(999, "ok"), (1000, "note")])
def test_the_largest_id_is_that_of_the_last_row(token: int, state: str, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(FLORENCE, tmp_path / "copy"))
    change_json(folder / "generation_config.json", decoder_start_token_id=token)
    [finding] = check_token_ids(Checkpoint.open(folder), vocabulary=1000)
    assert finding.state == state


def test_a_note_is_counted_and_fails_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = Path(shutil.copytree(FLORENCE, tmp_path / "copy"))
    change_json(folder / "generation_config.json", eos_token_id=5)
    assert main([str(folder)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert any(line.startswith("note     token ids       eos_token_id is 5 (") for line in lines)
    assert re.fullmatch(r"nothing failed: \d+ ok, 1 note, 1 skipped", lines[-1])


def test_several_ends_are_right_if_the_tokenizers_is_among_them(tmp_path: Path) -> None:
    folder = Path(shutil.copytree(FLORENCE, tmp_path / "copy"))
    change_json(folder / "generation_config.json", eos_token_id=[2, 5])
    assert {finding.state for finding in found(folder)} == {"ok", "skipped"}


# --- against published values ----------------------------------------------------------------------


def hashes(folder: Path, *, revision: str | None = None, published: str) -> list[Finding]:
    known = (Release("1" * 40, (PublishedFile(WEIGHTS, 7, published),)),)
    findings = check_files(Checkpoint.open(folder), known, revision)
    return [one for one in findings if one.check == "sha256" and WEIGHTS in one.detail]


def test_a_published_file_is_recognised() -> None:
    (finding,) = hashes(BLIP, published=sha256(BLIP / WEIGHTS, print))
    assert finding.state == "ok"
    assert finding.detail.endswith(f"as published in {'1' * 40}")


def test_another_file_fails_where_that_revision_was_asked_for() -> None:
    (finding,) = hashes(BLIP, revision="1" * 40, published="0" * 64)
    assert finding.state == "FAILED"
    assert f"published were 7 bytes, sha256 {'0' * 64}" in finding.detail


def test_another_file_may_be_a_fine_tune_where_no_revision_was_asked_for() -> None:
    (finding,) = hashes(BLIP, published="0" * 64)
    assert finding.state == "skipped"
    assert finding.detail.endswith("so perhaps a fine-tune")


def test_a_file_from_elsewhere_is_not_demanded_of_a_revision() -> None:
    known = (Release("1" * 40, (PublishedFile(WEIGHTS, 7, "0" * 64, source="some/model at " + "2" * 40),)),)
    findings = check_files(Checkpoint.open(BLIP), known, "1" * 40)
    assert [one.state for one in findings if WEIGHTS in one.detail and one.check == "sha256"] == ["skipped"]


def test_a_release_without_known_files_has_nothing_to_compare_with() -> None:
    findings = list(check_files(Checkpoint.open(BLIP), (Release("1" * 40),), "1" * 40))
    assert {one.state for one in findings} == {"ok"}
    assert findings[-1].detail.endswith("no published value known to compare with")


@pytest.mark.parametrize("right", [True, False])
def test_a_download_is_compared_with_what_the_hub_sent(right: bool, folder: Path) -> None:
    notes = folder / ".cache" / "huggingface" / "download"
    notes.mkdir(parents=True)
    sent = sha256(folder / WEIGHTS, print) if right else "0" * 64
    (notes / f"{WEIGHTS}.metadata").write_text(f"{'1' * 40}\n{sent}\n1.0\n")
    (finding,) = (one for one in found(folder) if one.check == "sha256" and WEIGHTS in one.detail)
    assert finding.state == ("ok" if right else "FAILED")
    assert ("as the hub sent it" if right else f"the hub sent {sent}") in finding.detail


def test_a_link_into_the_hubs_cache_names_the_hash(folder: Path) -> None:
    blob = folder / sha256(folder / WEIGHTS, print)
    (folder / WEIGHTS).rename(blob)
    (folder / WEIGHTS).symlink_to(blob)
    assert any(one.detail.endswith("as the hub sent it") for one in found(folder))


# --- running ---------------------------------------------------------------------------------------


def ran(folder: Path, options: RunOptions) -> list[Finding]:
    return list(check_run(Checkpoint.open(folder), dict(families())["blip"], options))


def test_output_that_is_not_finite_is_found_by_running(folder: Path) -> None:
    change_tensors(folder, lambda tensors: tensors["text_decoder.cls.predictions.bias"].fill_(float("nan")))
    assert ran(folder, RunOptions())[0].state == "FAILED"
    assert "not finite" in ran(folder, RunOptions())[0].detail


@pytest.mark.parametrize(("free", "dtype"), [(None, "float32"), (10**9, "float32"), (3 * 10**6, "bfloat16")])
def test_the_widest_dtype_that_fits_is_taken(free: int | None, dtype: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "_free_bytes", lambda device: free)
    assert ran(BLIP, RunOptions())[0].detail.startswith(f"{dtype} on cpu")


@pytest.mark.parametrize(
    ("meminfo", "free"),
    [("MemTotal:  4096 kB\nMemAvailable:  2048 kB\n", 2048 * 1024), ("MemTotal:  4096 kB\n", None), (None, None)],
)
def test_free_memory_is_what_linux_says_is_available(
    meminfo: str | None, free: int | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "meminfo"
    monkeypatch.setattr(run, "_MEMINFO", path)
    if meminfo is not None:
        path.write_text(meminfo, "ascii")
    assert run._free_bytes(torch.device("cpu")) == free


def test_too_little_memory_is_not_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "_free_bytes", lambda device: 1000)
    (finding,) = ran(BLIP, RunOptions())
    assert finding.state == "skipped"
    assert "memory is short" in finding.detail


def test_a_difference_from_transformers_is_shown_as_text(monkeypatch: pytest.MonkeyPatch) -> None:
    [answer] = ask_all(BLIP, [Request(sample_image(0), sampling=Sampling(max_tokens=run.TOKENS, num_beams=1))])
    others = (*answer.token_ids[:2], 5)
    monkeypatch.setattr(run, "reference", lambda *_, **__: lambda image: others)
    finding = ran(BLIP, RunOptions(compare=True))[-1]
    assert (finding.check, finding.state) == ("transformers", "FAILED")
    parts = r"the answers part after 2 equal tokens, '[^']+': next comes '[^']+' \(id \d+\) here, '[^']*' \(id 5\) in"
    assert re.match(parts, finding.detail), finding.detail
    others = answer.token_ids[:3]
    assert "nothing more in transformers" in ran(BLIP, RunOptions(compare=True))[-1].detail


OLD = "transformers 5.20.1 is installed, and answers of some models differ before 5.23: compare with that."
SETTINGS = "If generation_config.json has wrong token ids or other settings, correct it."


@pytest.mark.parametrize(("installed", "advice"), [("5.20.1", OLD), ("5.23.0", SETTINGS), ("6.0.0.dev0", SETTINGS)])
def test_a_difference_from_an_old_transformers_may_be_its_own(
    installed: str, advice: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vlm.reference.version", lambda name: installed)
    monkeypatch.setattr(run, "reference", lambda *_, **__: lambda image: (5,))
    assert ran(BLIP, RunOptions(compare=True))[-1].detail.endswith(advice)


def test_another_layout_than_transformers_own_is_not_compared(folder: Path) -> None:
    change_json(folder / "processor_config.json", processor_class="NoSuchProcessor")
    (folder / "tokenizer_config.json").unlink()
    state = ran(folder, RunOptions(compare=True))[-1]
    assert (state.check, state.state) == ("transformers", "skipped")
