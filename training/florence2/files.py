"""The files of the Florence-2 miniature except its weights: tokenizer, configuration, image processor.

The byte-level BPE is trained on the sentences of the world without its words in capitals. Capital letters therefore
never merge, and every word is read letter by letter.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import (
    AddedToken,
    BartConfig,
    BartTokenizer,
    CLIPImageProcessorPil,
    Florence2Config,
    Florence2Processor,
    Florence2VisionConfig,
    GenerationConfig,
)

from training.data import sentences
from training.data.normalisation import IMAGENET_MEAN, IMAGENET_STD
from training.data.world import HELD_OUT, scene
from vlm.models.florence2.tasks import TASKS
from vlm.models.florence2.vocabulary import ADDED_TOKENS

SIDE = 96
_STRIDES = (4, 2, 2, 1)
_CORPUS_SEEDS = range(HELD_OUT - 3000, HELD_OUT)
_QUAD = r"(.+?)" + r"<loc_(\d+)>" * 8
_PARSERS: dict[str, Any] = {
    name: {}
    for name in ("pure_text", "description_with_bboxes", "description_with_polygons", "polygons", "bboxes",
                 "description_with_bboxes_or_polygons")
} | {
    "ocr": {"PATTERN": _QUAD, "AREA_THRESHOLD": 0.0},
    "phrase_grounding": {"banned_grounding_tokens": ["it", "the image", "image", "a", "the"]},
}  # fmt: skip


def write_tokenizer(folder: Path) -> BartTokenizer:
    """Train the tokenizer and write its files in the layout of the Hugging Face hub."""
    vocabulary, merges = _train()
    tokenizer = BartTokenizer(vocab=vocabulary, merges=merges, model_max_length=1024)
    for names in (ADDED_TOKENS, ("<image>",)):  # the image token last, as published
        tokenizer.add_tokens([AddedToken(name, special=True, normalized=False) for name in names], special_tokens=True)
    tokenizer.save_pretrained(folder)
    path = folder / "tokenizer_config.json"
    image_token = {"extra_special_tokens": {"image_token": "<image>"}, "image_token": "<image>"}
    config = json.loads(path.read_text()) | image_token
    path.write_text(json.dumps(config, indent=2))
    (folder / "vocab.json").write_text(json.dumps(vocabulary, ensure_ascii=False))
    lines = ["#version: 0.2", *(f"{left} {right}" for left, right in merges)]
    (folder / "merges.txt").write_text("\n".join(lines) + "\n")
    return BartTokenizer.from_pretrained(folder)


def write_processor(folder: Path, tokenizer: BartTokenizer) -> None:
    """Write the settings of the image processor."""
    images = CLIPImageProcessorPil(
        size={"height": SIDE, "width": SIDE}, resample=3, do_center_crop=False, do_resize=True, do_rescale=True,
        rescale_factor=1 / 255, do_normalize=True, image_mean=list(IMAGENET_MEAN), image_std=list(IMAGENET_STD),
        image_seq_length=grid_side() ** 2 + 1,
    )  # fmt: skip
    images.image_seq_length = grid_side() ** 2 + 1
    Florence2Processor(image_processor=images, tokenizer=tokenizer, post_processor_config=_PARSERS).save_pretrained(
        folder
    )


def configuration(tokenizer: BartTokenizer) -> Florence2Config:
    """A model of 2.1 million parameters, half of them in the vision tower."""
    vocabulary = (len(tokenizer) + 63) // 64 * 64
    vision = Florence2VisionConfig(
        depths=[1, 1, 2, 1], embed_dim=[32, 64, 96, 128], num_heads=[2, 4, 6, 8], num_groups=[2, 4, 6, 8],
        patch_size=[7, 3, 3, 3], patch_stride=list(_STRIDES), patch_padding=[3, 1, 1, 1],
        patch_prenorm=[False, True, True, True], window_size=6, drop_path_rate=0.0, projection_dim=128,
        max_temporal_embeddings=100, max_position_embeddings=50,
    )  # fmt: skip
    text = BartConfig(
        vocab_size=vocabulary, d_model=128, encoder_layers=2, decoder_layers=2, encoder_attention_heads=4,
        decoder_attention_heads=4, encoder_ffn_dim=256, decoder_ffn_dim=256, max_position_embeddings=256, dropout=0.0,
        attention_dropout=0.0, activation_dropout=0.0, scale_embedding=False,
    )  # fmt: skip
    return Florence2Config(
        vision_config=vision, text_config=text.to_dict(), image_token_id=tokenizer.convert_tokens_to_ids("<image>")
    )


def generation() -> GenerationConfig:
    """As published: three beams, and no repeated trigram."""
    return GenerationConfig(
        bos_token_id=0, decoder_start_token_id=2, early_stopping=True, eos_token_id=2, forced_bos_token_id=0,
        forced_eos_token_id=2, no_repeat_ngram_size=3, num_beams=3, pad_token_id=1,
    )  # fmt: skip


def grid_side() -> int:
    """Width and height of the grid of features after the vision tower, in cells."""
    side = SIDE
    for stride in _STRIDES:
        side //= stride
    return side


@cache  # training and export both need it
def _train() -> tuple[dict[str, int], list[tuple[str, str]]]:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=700, special_tokens=["<s>", "<pad>", "</s>", "<unk>"], min_frequency=40,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()), show_progress=False,
    )  # fmt: skip
    tokenizer.train_from_iterator(_corpus(), trainer)
    model = json.loads(tokenizer.to_str())["model"]
    vocabulary: dict[str, int] = model["vocab"]
    merges = [(str(left), str(right)) for left, right in model["merges"]]
    return vocabulary | {"<mask>": len(vocabulary)}, merges


def _corpus() -> Iterator[str]:
    rng = random.Random(0)
    for seed in _CORPUS_SEEDS:
        one = scene(seed)
        spelled = one.word.text if one.word else ""
        for text in (sentences.plain(sentences.caption(one)), sentences.detailed(one), sentences.paragraph(one)):
            yield text.replace(f" {spelled}", "") if spelled else text
        for shape in one.shapes:
            yield from (shape.kind, shape.name, sentences.dense(shape))
        if rng.random() < 0.02:
            yield from (task.prompt("") for task in TASKS)
