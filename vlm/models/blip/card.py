"""The published facts about BLIP's captioning checkpoints."""

from __future__ import annotations

from vlm.models.cards import Card, Release, TaskCard

CARDS = (
    Card(
        name="blip-large",
        aliases=("Salesforce/blip-image-captioning-large",),
        hugging_face_id="Salesforce/blip-image-captioning-large",
        display_name="BLIP Image Captioning Large",
        description=(
            "Image captions, unconditional or continuing the words that the caption shall begin with. "
            "Trained on 129 M image-text pairs and tuned on COCO."
        ),
        family_name="BLIP",
        architecture="ViT-L encoder + multimodal encoder-decoder",
        parameters=470_000_000,
        license="BSD-3-Clause",
        published="2022-12",
        tasks=(TaskCard("caption", rank=4),),
        context_length=512,
        releases=(Release("353689b859fcf0523410b1806dace5fb46ecdf41"),),
    ),
)
