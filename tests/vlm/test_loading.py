"""From a folder to a model that answers: which family, dtype and device, and Florence-2's original upload."""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from tests.images import scenes
from tests.oracle import MINIATURES, ask, ask_all, without_scores
from vlm.checkpoint.files import Checkpoint
from vlm.engine.engine import Engine
from vlm.errors import CheckpointError, ConfigError
from vlm.loading import _dtype, _set_up, families, find_device, find_family, info, load
from vlm.models.cards import Card, cards
from vlm.models.family import Family
from vlm.types import Completion, ModelInfo

BLIP, FLORENCE = MINIATURES / "blip-large", MINIATURES / "florence-2-base"
PROMPTS = ("<CAPTION>", "<OD>", "<OCR_WITH_REGION>", "<CAPTION_TO_PHRASE_GROUNDING> a red circle left of a blue square")


def with_config(source: Path, folder: Path, **changes: Any) -> Path:
    shutil.copytree(source, folder, dirs_exist_ok=True)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **changes}))
    return folder


def test_the_family_is_found_by_the_model_type() -> None:
    loaded = load(BLIP, device="cpu")
    assert (loaded.family, loaded.source, loaded.revision) == ("blip", str(BLIP), None)
    assert loaded.model.dtype == torch.float32
    assert loaded.model.device.type == "cpu"


def test_a_loaded_model_is_described() -> None:
    parameters = sum(tensor.numel() for tensor in load_file(BLIP / "model.safetensors").values())
    assert replace(info(load(BLIP, dtype="bfloat16", device="cpu")), calibrated=()) == ModelInfo(
        family="blip", checkpoint=str(BLIP), revision=None, parameters=parameters, dtype="bfloat16", device="cpu"
    )


@pytest.mark.parametrize(("device", "expected"), [("cuda", [False]), ("cpu", [])])
def test_attention_on_a_gpu_is_not_planned_by_cudnn(
    device: str, expected: list[bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    enabled: list[bool] = []
    monkeypatch.setattr("torch.backends.cuda.enable_cudnn_sdp", enabled.append)
    _set_up(torch.device(device))
    assert enabled == expected


IMPORTED = """
import sys
from vlm import Engine, Request, load
from vlm.engine.config import EngineConfig
from vlm.image.sample import sample_image

with Engine(load(sys.argv[1], device="cpu"), EngineConfig(cache_bytes=1 << 26)) as engine:
    engine.answer(Request(sample_image(0)))
print(*sys.modules)
"""


def test_no_model_waits_for_what_it_does_not_need() -> None:
    """torch's compiler and transformers each take as long to import as torch itself."""
    for folder in sorted(path for path in MINIATURES.iterdir() if path.is_dir()):
        run = subprocess.run([sys.executable, "-c", IMPORTED, folder], capture_output=True, text=True, check=True)
        imported = set(run.stdout.split())
        assert "torch" in imported
        assert imported.isdisjoint({"torch._dynamo", "transformers", "huggingface_hub", "vlm.reference", "ray"})


def test_only_the_family_that_serves_a_checkpoint_is_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    imported: list[str] = []
    known = dict(families())

    def record(name: str) -> Family:
        imported.append(name)
        return known[name]

    monkeypatch.setattr("vlm.loading._imported", record)
    for name, family in known.items():
        find_family(Checkpoint(BLIP, "", None, {"model_type": family.model_types[0]}))
        assert imported.pop() == name
        assert not imported


@pytest.mark.parametrize("folder", [BLIP, FLORENCE], ids=["blip", "florence2"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_shared_weights_are_the_same_and_are_mapped(folder: Path, dtype: str, tmp_path: Path) -> None:
    own = load(folder, device="cpu", dtype=dtype)
    for _ in range(2):
        shared = load(folder, device="cpu", dtype=dtype, weights_cache=tmp_path)
        assert isinstance(own.model, torch.nn.Module)
        assert isinstance(shared.model, torch.nn.Module)
        ours = dict(shared.model.named_parameters())
        assert all(torch.equal(ours[name], parameter) for name, parameter in own.model.named_parameters())
        assert str(tmp_path) in Path("/proc/self/maps").read_text()
    (file,) = tmp_path.iterdir()
    assert file.stat().st_size >= sum(parameter.nbytes for parameter in ours.values())


def test_a_checkpoint_that_is_cut_short_is_refused_though_it_was_in_the_cache(tmp_path: Path) -> None:
    folder = tmp_path / "blip"
    shutil.copytree(BLIP, folder)
    cache = tmp_path / "cache"
    load(folder, device="cpu", weights_cache=cache)
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1000])
    with pytest.raises(CheckpointError, match="is cut short or damaged"):
        load(folder, device="cpu", weights_cache=cache)
    assert len(list(cache.iterdir())) == 1


def test_a_cache_that_is_too_small_is_not_used(tmp_path: Path) -> None:
    load(BLIP, device="cpu", weights_cache=str(tmp_path), weights_cache_bytes=1000)
    assert not list(tmp_path.iterdir())


def test_an_unknown_model_type_names_what_is_served(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="has model_type 'clip'; this project serves ") as caught:
        load(with_config(BLIP, tmp_path, model_type="clip"), device="cpu")
    for _, family in families():
        assert all(kind in str(caught.value) for kind in family.model_types)


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        ({"dtype": "int8"}, "'int8' is not a valid dtype; use float32, bfloat16, float16 or auto"),
        ({"device": "toaster"}, "'toaster' is not a valid device; use cpu, cuda or auto"),
        ({"device": "meta"}, "'meta' is not supported; use cpu, cuda or auto"),
        ({"device": "cuda:99"}, "no device 'cuda:99' here; use cpu or auto"),
    ],
)
def test_what_cannot_be_used_is_named_before_anything_is_read(choice: dict[str, str], message: str) -> None:
    with pytest.raises(CheckpointError, match=re.escape(message)) as caught:
        load("no/such", **choice)  # type: ignore[arg-type]  # every value is a string
    assert caught.value.param == next(iter(choice))


def test_a_short_load_is_reported_in_one_line() -> None:
    lines: list[str] = []
    load(BLIP, dtype="float32", device="cpu", report=lines.append)
    (line,) = lines
    assert re.fullmatch(re.escape(f"loaded {BLIP} (blip) as float32 on cpu in ") + r"\d+\.\d s", line)


@pytest.mark.parametrize("name", ["preprocessor_config.json", "tokenizer.json"])
def test_a_fine_tune_without_a_small_file_is_told_where_to_get_it(name: str, tmp_path: Path) -> None:
    shutil.copytree(BLIP, tmp_path, dirs_exist_ok=True)
    (tmp_path / "processor_config.json").unlink()
    (tmp_path / name).unlink(missing_ok=True)
    if name == "tokenizer.json":
        settings = json.loads((BLIP / "processor_config.json").read_text())["image_processor"]
        (tmp_path / "preprocessor_config.json").write_text(json.dumps(settings))
    with pytest.raises(CheckpointError) as caught:
        load(tmp_path, device="cpu")
    assert f"{name} in {tmp_path} is missing" in str(caught.value)
    assert f"hf download Salesforce/blip-image-captioning-large {name} --revision 353689b8" in str(caught.value)
    assert str(caught.value).endswith(f"--local-dir {tmp_path}")


def test_a_file_that_another_repository_publishes_comes_from_there(tmp_path: Path) -> None:
    shutil.copytree(MINIATURES / "moondream-2", tmp_path, dirs_exist_ok=True)
    (tmp_path / "tokenizer.json").unlink()
    with pytest.raises(CheckpointError, match=r"hf download moondream/starmie-v1 tokenizer\.json --revision 3519"):
        load(tmp_path, device="cpu")


@pytest.mark.parametrize("card", cards().values(), ids=lambda card: card.name)
def test_a_hub_id_without_a_revision_is_offered_the_pinned_one(card: Card) -> None:
    pinned = card.releases[0].revision
    with pytest.raises(CheckpointError, match=rf"pin a full commit id.* is written for --revision {pinned}\."):
        load(str(card.hugging_face_id), device="cpu")


def test_a_hub_id_without_a_card_is_offered_no_revision() -> None:
    with pytest.raises(CheckpointError, match=r"branches and tags can move\.$"):
        load("organisation/name", device="cpu")


@pytest.mark.parametrize("folder", [BLIP, FLORENCE], ids=["blip", "florence2"])
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_loads_and_answers(folder: Path, dtype: str) -> None:
    loaded = load(folder, dtype=dtype, device="cpu")
    assert loaded.model.dtype == getattr(torch, dtype)
    with Engine(loaded) as engine:
        completion = asyncio.run(engine.complete(ask(scenes(1)[0])))
    assert completion.text.startswith(("a ", "an ", "one ", "two ", "three "))


def test_a_shape_that_config_does_not_ask_for_is_named(tmp_path: Path) -> None:
    shutil.copytree(BLIP, tmp_path, dirs_exist_ok=True)
    tensors = load_file(tmp_path / "model.safetensors")
    name = "text_decoder.bert.embeddings.position_embeddings.weight"
    tensors[name] = tensors[name][:10].clone()
    save_file(tensors, tmp_path / "model.safetensors")
    with pytest.raises(CheckpointError, match=re.escape(f"{name}: (10, 128) instead of (64, 128)")):
        load(tmp_path, device="cpu")


# --- Florence-2 as Microsoft published it ----------------------------------------------------------

_RENAMED = (  # the native name to the original one; the first that matches counts
    (r"model\.vision_tower\.convs\.(\d+)\.conv\.(.+)", r"vision_tower.convs.\1.proj.\2"),
    (r"model\.(vision_tower\.blocks\..+_block)\.(conv[12])\.(.+)", r"\1.\2.fn.dw.\3"),
    (r"model\.(vision_tower\.blocks\..+\.spatial_block)\.norm1\.(.+)", r"\1.window_attn.norm.\2"),
    (r"model\.(vision_tower\.blocks\..+\.channel_block)\.norm1\.(.+)", r"\1.channel_attn.norm.\2"),
    (r"model\.(vision_tower\.blocks\..+_block)\.norm2\.(.+)", r"\1.ffn.norm.\2"),
    (r"model\.(vision_tower\.blocks\..+_block\.(?:window|channel)_attn)\.(.+)", r"\1.fn.\2"),
    (r"model\.(vision_tower\.blocks\..+_block\.ffn)\.(fc[12]\..+)", r"\1.fn.net.\2"),
    (r"model\.(vision_tower\..+)", r"\1"),
    (r"model\.multi_modal_projector\.image_position_embed\.(.+)", r"image_pos_embed.\1"),
    (r"model\.multi_modal_projector\.(.+)", r"\1"),
    (r"model\.language_model\.(.+)", r"language_model.model.\1"),
    (r"lm_head\.weight", r"language_model.lm_head.weight"),
)


def original_name(native: str) -> str:
    for pattern, replacement in _RENAMED:
        match = re.fullmatch(pattern, native)
        if match:
            return match.expand(replacement)
    raise AssertionError(native)


def original_tensors(native: dict[str, Tensor]) -> dict[str, Tensor]:
    """Other names, every tied matrix written out, a zero bias, and the projection transposed."""
    tensors = {original_name(name): tensor for name, tensor in native.items()}
    projection = tensors.pop("image_projection.weight")
    shared = tensors["language_model.model.shared.weight"]
    tied = ("model.encoder.embed_tokens.weight", "model.decoder.embed_tokens.weight", "lm_head.weight")
    return {
        **tensors,
        "image_projection": projection.t().contiguous(),
        "language_model.final_logits_bias": torch.zeros(1, len(shared)),
        **{f"language_model.{name}": shared.clone() for name in tied},
    }


def original_config(native: dict[str, Any]) -> dict[str, Any]:
    vision, text = dict(native["vision_config"]), dict(native["text_config"])
    vision = {
        **vision,
        "model_type": "davit",
        "dim_embed": vision.pop("embed_dim"),
        "image_pos_embed": {"type": "learned_abs_2d", "max_pos_embeddings": vision.pop("max_position_embeddings")},
        "visual_temporal_embedding": {
            "type": "COSINE",
            "max_temporal_embeddings": vision.pop("max_temporal_embeddings"),
        },
    }
    for key in ("embed_dim", "max_position_embeddings", "max_temporal_embeddings"):
        vision.pop(key, None)
    text["model_type"] = "florence2_language"
    text["forced_bos_token_id"] = text["bos_token_id"]
    return {
        "model_type": "florence2",
        "projection_dim": vision["projection_dim"],
        "vocab_size": text["vocab_size"],
        "vision_config": vision,
        "text_config": text,
    }


def without_added_tokens(tokenizer: dict[str, Any]) -> dict[str, Any]:
    """As the hub has it: BART's vocabulary alone, to which code of the upload added the rest."""
    own = ("<s>", "<pad>", "</s>", "<unk>", "<mask>")
    kept = [token for token in tokenizer["added_tokens"] if token["content"] in own]
    return {**tokenizer, "added_tokens": kept}


def original_upload(native: Path, folder: Path) -> Path:
    shutil.copytree(native, folder, dirs_exist_ok=True)
    read = {name: json.loads((native / name).read_text()) for name in ("config.json", "tokenizer.json")}
    (folder / "config.json").write_text(json.dumps(original_config(read["config.json"])))
    (folder / "tokenizer.json").write_text(json.dumps(without_added_tokens(read["tokenizer.json"])))
    save_file(original_tensors(load_file(native / "model.safetensors")), folder / "model.safetensors")
    return folder


def answers(folder: Path) -> list[Completion]:
    return ask_all(folder, [ask(image, prompt, max_tokens=40) for image in scenes(3, first=40) for prompt in PROMPTS])


def test_florence_2_in_the_original_layout_answers_as_the_native_folder(tmp_path: Path) -> None:
    original = original_upload(FLORENCE, tmp_path / "original")
    names = load_file(original / "model.safetensors").keys()
    assert not any(name.startswith(("model.", "lm_head")) for name in names)
    for ours, native in zip(answers(original), answers(FLORENCE), strict=True):
        assert (ours.token_ids, ours.text) == (native.token_ids, native.text)
        assert without_scores(ours.grounding) == without_scores(native.grounding)
        assert ours.logprobs == pytest.approx(native.logprobs, abs=1e-4)  # batches were cut at other moments


def test_an_original_upload_with_a_bias_on_its_output_is_refused(tmp_path: Path) -> None:
    original = original_upload(FLORENCE, tmp_path / "original")
    tensors = load_file(original / "model.safetensors")
    tensors["language_model.final_logits_bias"][0, 3] = 1
    save_file(tensors, original / "model.safetensors")
    with pytest.raises(CheckpointError, match="final_logits_bias is not zero"):
        load(original, device="cpu")


def test_what_names_a_checkpoint_is_passed_on_and_the_model_is_ready_to_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[object] = []

    def open_blip(*arguments: object) -> Checkpoint:
        asked.append(arguments)
        return Checkpoint(BLIP, "org/name", "a" * 40, json.loads((BLIP / "config.json").read_text()), print)

    monkeypatch.setattr("vlm.loading.Checkpoint.open", open_blip)
    loaded = load("org/name", revision="a" * 40, device="cpu", report=print)
    assert asked == [("org/name", "a" * 40, print)]
    assert (loaded.source, loaded.revision) == ("org/name", "a" * 40)
    assert isinstance(loaded.model, torch.nn.Module)
    assert not loaded.model.training


@pytest.mark.parametrize(
    ("cards", "auto", "dtype"), [(0, "cpu", torch.float32), (1, "cuda", torch.bfloat16), (2, "cuda", torch.bfloat16)]
)
def test_devices_and_dtypes(cards: int, auto: str, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.device_count", lambda: cards)
    monkeypatch.setattr("torch.cuda.is_available", lambda: cards > 0)
    assert find_device("auto") == torch.device(auto)
    assert _dtype("auto", torch.device(auto)) == dtype
    for index in range(cards):
        assert find_device(f"cuda:{index}") == torch.device("cuda", index)
    with pytest.raises(CheckpointError, match="There is no device"):
        find_device(f"cuda:{cards}")


def test_a_model_may_be_refused_before_its_weights_take_memory() -> None:
    def refuse(_: object, parameters: int, dtype: torch.dtype) -> None:
        raise ConfigError(f"{parameters} of {dtype}")

    parameters = info(load(BLIP, device="cpu")).parameters
    with pytest.raises(ConfigError, match=rf"^{parameters} of torch.float32$"):
        load(BLIP, device="cpu", admit=refuse)
