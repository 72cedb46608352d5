"""The published facts about Kosmos-2."""

from __future__ import annotations

from vlm.models.cards import Card, PromptCard, Release, TaskCard

CARDS = (
    Card(
        name="kosmos-2",
        aliases=("microsoft/kosmos-2-patch14-224",),
        hugging_face_id="microsoft/kosmos-2-patch14-224",
        display_name="Kosmos-2",
        description=(
            "Grounded captions, brief and detailed, phrase grounding, descriptions of a region and visual question "
            "answering: text whose phrases are tied to boxes. Trained on GRIT, about 20 M grounded image-caption pairs."
        ),
        family_name="Kosmos-2",
        architecture="transformer-based multimodal LLM",
        parameters=1_700_000_000,
        license="MIT",
        published="2023-10",
        tasks=(
            TaskCard(
                "caption",
                rank=3,
                native=("<grounding>An image of", "<grounding>Describe this image in detail:"),
                outputs=("text", "boxes"),
            ),
            TaskCard(
                "detect", rank=3, native=("<grounding><phrase>...</phrase>",), outputs=("boxes",), needs=("labels",)
            ),
            TaskCard(
                "ground",
                rank=3,
                native=("<grounding><phrase>...</phrase>",),
                outputs=("text", "boxes"),
                needs=("text",),
            ),
            TaskCard(
                "query",
                rank=2,
                native=("<grounding> Question: ... Answer:",),
                outputs=("text", "boxes"),
                needs=("text",),
            ),
            TaskCard(
                "region_caption",
                rank=2,
                native=("<grounding><phrase>It</phrase><object><patch_index_....><patch_index_....></object> is",),
                outputs=("text", "boxes"),
                needs=("region",),
            ),
        ),
        prompts=(
            PromptCard("<grounding>An image of", "caption", length="short"),
            PromptCard("<grounding>Describe this image in detail:", "caption", length="normal"),
            PromptCard("<grounding>Question: ... Answer:", "query", "text"),
            PromptCard("<grounding><phrase>...</phrase>", "ground", "text"),
            PromptCard("<phrase>...</phrase>", "ground", "text"),
        ),
        coordinate_bins=(32, 32),
        context_length=2048,
        releases=(Release("e91cfbcb4ce051b6a55bfb5f96165a3bbf5eb82c"),),
    ),
)
