"""The published facts about Florence-2's checkpoints."""

from __future__ import annotations

from vlm.cards import Card, TaskCard

CARDS = (
    Card(
        name="florence-2-base",
        aliases=("microsoft/Florence-2-base",),
        hugging_face_id="microsoft/Florence-2-base",
        display_name="Florence-2 Base",
        description=(
            "Captions of three lengths, object detection, phrase grounding and OCR, each asked for by its prompt "
            "token. Trained on FLD-5B: 5.4 B annotations on 126 M images."
        ),
        architecture="sequence-to-sequence encoder-decoder (DaViT + BART)",
        parameters="0.23 B",
        license="MIT",
        published="2024-06",
        price_per_1k_images_usd="0.094",
        tasks=(
            TaskCard("caption", native=("<CAPTION>", "<DETAILED_CAPTION>", "<MORE_DETAILED_CAPTION>")),
            TaskCard("detect", native=("<OD>",), outputs=("boxes",)),
            TaskCard("ground", native=("<CAPTION_TO_PHRASE_GROUNDING>",), outputs=("boxes",), needs=("text",)),
            TaskCard("ocr", native=("<OCR>",)),
            TaskCard("ocr_regions", native=("<OCR_WITH_REGION>",), outputs=("text", "quads")),
        ),
        coordinate_bins=(1000, 1000),
        context_length=1024,
    ),
)
