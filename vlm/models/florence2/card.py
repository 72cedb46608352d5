"""The published facts about Florence-2's checkpoints."""

from __future__ import annotations

from vlm.models.cards import Card, PromptCard, Release, TaskCard

CARDS = (
    Card(
        name="florence-2-base",
        aliases=("microsoft/Florence-2-base",),
        hugging_face_id="microsoft/Florence-2-base",
        display_name="Florence-2 Base",
        description=(
            "Captions of three lengths, object detection with or without a label, phrase grounding, segmentation, "
            "OCR, and questions about a region, each asked for by its prompt token. Points are derived: they are the "
            "centres of detected boxes. Trained on FLD-5B: 5.4 B annotations on 126 M images."
        ),
        family_name="Florence-2",
        architecture="sequence-to-sequence encoder-decoder (DaViT + BART)",
        parameters=230_000_000,
        license="MIT",
        published="2024-06",
        tasks=(
            TaskCard("caption", rank=1, native=("<CAPTION>", "<DETAILED_CAPTION>", "<MORE_DETAILED_CAPTION>")),
            TaskCard("dense_caption", rank=1, native=("<DENSE_REGION_CAPTION>",), outputs=("boxes",)),
            # One label asks for <OPEN_VOCABULARY_DETECTION>, which may answer with polygons; none for <OD>.
            TaskCard("detect", rank=1, native=("<OD>", "<OPEN_VOCABULARY_DETECTION>"), outputs=("boxes", "polygons")),
            TaskCard("ground", rank=1, native=("<CAPTION_TO_PHRASE_GROUNDING>",), outputs=("boxes",), needs=("text",)),
            TaskCard("ocr", rank=1, native=("<OCR>",)),
            TaskCard("ocr_regions", rank=1, native=("<OCR_WITH_REGION>",), outputs=("text", "quads")),
            # The centres of detect's boxes, with or without a label: it has no prompt of its own.
            TaskCard("point", rank=2, outputs=("points", "boxes")),
            TaskCard(
                "region_caption",
                rank=1,
                native=("<REGION_TO_DESCRIPTION>",),
                outputs=("text", "boxes"),
                needs=("region",),
            ),
            TaskCard(
                "region_category",
                rank=1,
                native=("<REGION_TO_CATEGORY>",),
                outputs=("text", "boxes"),
                needs=("region",),
            ),
            TaskCard("region_ocr", rank=1, native=("<REGION_TO_OCR>",), outputs=("text", "boxes"), needs=("region",)),
            TaskCard("region_proposal", rank=1, native=("<REGION_PROPOSAL>",), outputs=("boxes",)),
            TaskCard(
                "segment",
                rank=1,
                native=("<REFERRING_EXPRESSION_SEGMENTATION>", "<REGION_TO_SEGMENTATION>"),
                outputs=("polygons",),
                needs=("text",),  # or a region instead
            ),
        ),
        prompts=(
            PromptCard("<CAPTION>", "caption", length="short"),
            PromptCard("<DETAILED_CAPTION>", "caption", length="normal"),
            PromptCard("<MORE_DETAILED_CAPTION>", "caption", length="long"),
            PromptCard("<OD>", "detect"),
            PromptCard("<OPEN_VOCABULARY_DETECTION> ...", "detect", "labels"),
            PromptCard("<DENSE_REGION_CAPTION>", "dense_caption"),
            PromptCard("<REGION_PROPOSAL>", "region_proposal"),
            PromptCard("<CAPTION_TO_PHRASE_GROUNDING> ...", "ground", "text"),
            PromptCard("<REFERRING_EXPRESSION_SEGMENTATION> ...", "segment", "text"),
            PromptCard("<REGION_TO_SEGMENTATION> ...", "segment", "region"),
            PromptCard("<REGION_TO_CATEGORY> ...", "region_category", "region"),
            PromptCard("<REGION_TO_DESCRIPTION> ...", "region_caption", "region"),
            PromptCard("<REGION_TO_OCR> ...", "region_ocr", "region"),
            PromptCard("<OCR>", "ocr"),
            PromptCard("<OCR_WITH_REGION>", "ocr_regions"),
        ),
        coordinate_bins=(1000, 1000),
        context_length=1024,
        releases=(Release("5ca5edf5bd017b9919c05d08aebef5e4c7ac3bac"),),
    ),
)
