"""The published facts about Moondream 2."""

from __future__ import annotations

from vlm.models.cards import Card, PublishedFile, Release, TaskCard

CARDS = (
    Card(
        name="moondream-2",
        aliases=("vikhyatk/moondream2",),
        hugging_face_id="vikhyatk/moondream2",
        display_name="Moondream 2",
        description=(
            "Captions of three lengths, visual question answering, also about points and boxes and with reasoning that "
            "points at what it mentions, open-vocabulary detection, and pointing. Greedy by default; the original "
            "samples, at temperature 0.5 and top_p 0.3."
        ),
        family_name="Moondream 2",
        architecture="transformer-based VLM",
        parameters=1_900_000_000,
        license="Apache-2.0",
        published="2025-06",
        tasks=(
            TaskCard("caption", rank=2),
            TaskCard("detect", rank=2, outputs=("boxes",), needs=("labels",)),
            TaskCard("ground", rank=2, outputs=("boxes",), needs=("text",)),
            TaskCard("point", rank=1, outputs=("points",), needs=("labels",)),
            TaskCard("query", rank=1, outputs=("text", "points"), needs=("text",)),
        ),
        coordinate_bins=(1024, 1024),
        context_length=2048,
        beam_search=False,
        api="moondream",
        reasoning=True,
        releases=(
            Release(
                "9a7d4024050840e001defacec2b00727e89149e6",
                (
                    PublishedFile(
                        "model.safetensors",
                        3854538968,
                        "70a7d94c0c8349eb58ed2d9e636ef2d0916960f321ecabeac6354b8ba3d7403f",
                    ),
                    PublishedFile(
                        "tokenizer.json",
                        3694206,
                        "0512fdcac4a5f9e7746cbefce4a468dc93bf0f93f11e701b84f8b31bff199e9c",
                        source="moondream/starmie-v1 at 35192e10a54e36eabe0a7cc57a2c1aab371cafc5",
                    ),
                ),
            ),
        ),
    ),
)
