"""Entries of ``GET /v1/models``."""

from __future__ import annotations

from router.backends.base import ModelStatus
from router.catalogue import entry
from router.config import RouterConfig
from vlm.models.cards import cards

CONFIG = RouterConfig(max_image_bytes=7)


def test_an_entry_to_the_letter() -> None:
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
        "architecture": {
            "modality": "text+image->text",
            "input_modalities": ["text", "image"],
            "output_modalities": ["text"],
            "description": "sequence-to-sequence encoder-decoder (DaViT + BART)",
        },
        "parameters": "0.23 B",
        "price_per_1k_images_usd": "0.094",
        "license": {"spdx": "MIT", "url": "https://spdx.org/licenses/MIT.html"},
        "limits": {"max_images": 1, "max_tasks": 16, "max_bytes": 7, "max_pixels": 40_000_000, "min_side": 1},
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


def test_moondream_s_tasks_and_what_it_does_not_know() -> None:
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


def test_every_card_makes_an_entry() -> None:
    for name in cards():
        assert entry(ModelStatus(name, ready=True, detail=""), CONFIG)["created"] > 0
