"""Entries of ``GET /v1/models``."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

import pytest

from router.backends.base import ModelStatus
from router.catalogue import entry, task_entries
from router.config import RouterConfig
from vlm.models.cards import cards
from vlm.types import ModelInfo

CONFIG = RouterConfig(max_image_bytes=7, prices={"florence-2-base": "0.094"})
OWN = ModelInfo("florence2", "/data/mine", None, 1_234_567, "float32", "cpu")


def served(name: str, info: ModelInfo | None) -> dict[str, Any]:
    return entry(ModelStatus(name, ready=True, detail="running", info=info), CONFIG)


def test_every_field_of_an_entry() -> None:
    described = entry(ModelStatus("florence-2-base", ready=True, detail="running"), CONFIG)
    assert described.pop("description").startswith("Captions of three lengths")
    assert {"task", "tasks", "num_beams"} < set(described.pop("supported_parameters"))
    tasks = described.pop("tasks")
    assert described == {
        "id": "florence-2-base",
        "object": "model",
        "created": 1717200000,  # 2024-06-01
        "owned_by": "microsoft",
        "canonical_slug": "microsoft/Florence-2-base",
        "aliases": ["microsoft/Florence-2-base"],
        "name": "Florence-2 Base",
        "hugging_face_id": "microsoft/Florence-2-base",
        "context_length": 1024,
        "max_model_len": 1024,
        "architecture": {
            "modality": "text+image->text",
            "input_modalities": ["text", "image"],
            "output_modalities": ["text"],
            "description": "sequence-to-sequence encoder-decoder (DaViT + BART)",
        },
        "family": None,
        "checkpoint": None,
        "revision": None,
        "dtype": None,
        "parameters": 230_000_000,
        "price_per_1k_images_usd": "0.094",
        "pricing": {
            "prompt": "0",
            "completion": "0",
            "request": "0",
            "image": "0.000094",
            "cached_image": "0.000094",
            "tasks": {},
        },
        "license": {"spdx": "MIT", "url": "https://spdx.org/licenses/MIT.html"},
        "limits": {"max_images": 16, "max_tasks": 16, "max_bytes": 7, "max_pixels": 40_000_000, "min_side": 1},
        "coordinate_bins": [1000, 1000],
        "status": {"ready": True, "detail": "running"},
    }
    assert " ".join(task["name"] for task in tasks) == (
        "caption dense_caption detect ground ocr ocr_regions point region_caption region_category region_ocr "
        "region_proposal segment"
    )
    assert tasks[1] == {
        "name": "dense_caption",
        "native": ["<DENSE_REGION_CAPTION>"],
        "outputs": ["boxes"],
        "needs": [],
    }


def test_moondream_has_no_beam_search() -> None:
    described = entry(ModelStatus("moondream-2", ready=False, detail="not deployed"), CONFIG)
    assert [task["name"] for task in described["tasks"]] == ["caption", "detect", "ground", "point", "query"]
    assert described["tasks"][-1]["outputs"] == ["text", "points"]
    assert {"temperature", "task"} < set(described["supported_parameters"])
    assert "num_beams" not in described["supported_parameters"]
    assert (described["aliases"], described["coordinate_bins"]) == (["vikhyatk/moondream2"], [1024, 1024])


def test_a_model_without_a_card_claims_nothing() -> None:
    described = entry(ModelStatus("my/model", ready=False, detail="deploying"), CONFIG)
    assert (described["id"], described["name"], described["created"]) == ("my/model", "my/model", 0)
    assert described["owned_by"] == "gigarouter"
    assert described["license"] == {"spdx": None, "url": None}
    assert described["tasks"] == []
    unknown = ("hugging_face_id", "context_length", "price_per_1k_images_usd", "coordinate_bins", "parameters")
    assert [described[name] for name in unknown] == [None] * 5


def test_published_weights_are_described_as_such() -> None:
    info = ModelInfo("florence2", "microsoft/Florence-2-base", "5ca5edf", 231_428_096, "bfloat16", "cuda")
    described, unloaded = served("florence-2-base", info), served("florence-2-base", None)
    differing = {name for name in described if described[name] != unloaded[name]}
    assert differing == {"family", "checkpoint", "revision", "dtype", "parameters"}
    assert described["parameters"] == 231_428_096
    assert (described["family"], described["checkpoint"]) == ("florence2", "microsoft/Florence-2-base")
    assert (described["revision"], described["dtype"]) == ("5ca5edf", "bfloat16")


def test_another_checkpoint_claims_nothing_about_the_published_one() -> None:
    described = served("florence-2-base", OWN)
    assert described["description"] == "A checkpoint of the Florence-2 architecture loaded from /data/mine."
    assert (described["parameters"], described["dtype"]) == (1_234_567, "float32")
    assert (described["checkpoint"], described["revision"]) == ("/data/mine", None)
    assert (described["created"], described["owned_by"]) == (0, "gigarouter")
    assert (described["name"], described["canonical_slug"]) == ("florence-2-base", "florence-2-base")
    assert described["hugging_face_id"] is None
    assert described["license"] == {"spdx": None, "url": None}
    assert described["architecture"]["description"] == "Florence-2"
    assert described["aliases"] == ["microsoft/Florence-2-base"]  # a request by that name is answered by this model


def test_a_model_under_its_own_name_has_the_tasks_of_its_family() -> None:
    described, published = served("pets", OWN), served("florence-2-base", None)
    assert (described["id"], described["name"], described["aliases"]) == ("pets", "pets", [])
    for name in ("tasks", "coordinate_bins", "context_length", "supported_parameters"):
        assert described[name] == published[name]
    assert "num_beams" not in served("eyes", replace(OWN, family="moondream2"))["supported_parameters"]
    assert described["price_per_1k_images_usd"] is None


def test_published_weights_under_another_name() -> None:
    described = served("captions", replace(OWN, family="blip", checkpoint="Salesforce/blip-image-captioning-large"))
    assert (described["id"], described["aliases"]) == ("captions", [])
    assert described["hugging_face_id"] == "Salesforce/blip-image-captioning-large"
    assert described["license"]["spdx"] == "BSD-3-Clause"


def test_the_loaded_family_decides_and_not_the_name() -> None:
    described = served("blip-large", OWN)
    assert described["coordinate_bins"] == [1000, 1000]
    assert described["aliases"] == []


def test_a_family_without_a_card() -> None:
    described = served("new", replace(OWN, family="nosuchfamily"))
    assert described["description"] == "A checkpoint of the nosuchfamily architecture loaded from /data/mine."
    assert described["tasks"] == []


def test_the_price_is_the_configured_one() -> None:
    config = RouterConfig(prices={"pets": "0.5"})
    assert entry(ModelStatus("pets", ready=True, detail="", info=OWN), config)["price_per_1k_images_usd"] == "0.5"


def test_each_task_can_be_named_behind_the_name() -> None:
    status = ModelStatus("florence-2-base", ready=True, detail="running")
    entries, whole = task_entries(status, CONFIG), entry(status, CONFIG)
    assert "florence-2-base:ocr" in {one["id"] for one in entries}
    assert "florence-2-base:region_ocr" not in {one["id"] for one in entries}  # its region has no place there
    for one in entries:
        [task] = one["tasks"]
        assert one["id"] == f"florence-2-base:{task['name']}"
        assert one["aliases"] == [f"microsoft/Florence-2-base:{task['name']}"]
        assert one.keys() == whole.keys()
        assert one["supported_parameters"] == whole["supported_parameters"]


def test_the_operators_default_is_an_alias() -> None:
    config = RouterConfig(default_model="blip-large")
    status = ModelStatus("blip-large", ready=True, detail="running")
    assert entry(status, config)["aliases"][-1] == "default"


def test_every_card_makes_an_entry() -> None:
    for name in cards():
        assert entry(ModelStatus(name, ready=True, detail=""), CONFIG)["created"] > 0


def test_the_date_does_not_depend_on_where_the_server_is(monkeypatch: pytest.MonkeyPatch) -> None:
    try:
        monkeypatch.setenv("TZ", "Asia/Tokyo")
        time.tzset()
        assert served("florence-2-base", None)["created"] == 1717200000
    finally:
        monkeypatch.undo()
        time.tzset()
