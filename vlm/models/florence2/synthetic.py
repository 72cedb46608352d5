"""Writes the files beside Florence-2's weights: layout and special ids as published, the other words made up."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import islice
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors

from vlm.checkpoint.synthesis import made_up_words, write_json
from vlm.models.florence2.vocabulary import ADDED_TOKENS

_FIRST = ("<s>", "<pad>", "</s>", "<unk>")


def _config(vision: Mapping[str, Any], text: Mapping[str, int], words: int) -> dict[str, Any]:
    """``words`` is the size of BART's vocabulary; the location and task tokens follow it."""
    image_token = words + len(ADDED_TOKENS)
    return {
        "model_type": "florence2",
        "architectures": ["Florence2ForConditionalGeneration"],
        "is_encoder_decoder": True,
        "image_token_id": image_token,
        "vision_config": {
            "model_type": "florence_vision", "patch_size": [7, 3, 3, 3], "patch_padding": [3, 1, 1, 1],
            "patch_prenorm": [False, True, True, True], "max_position_embeddings": 50, "max_temporal_embeddings": 100,
            "projection_dim": text["d_model"], **vision,
        },
        "text_config": {
            "model_type": "bart", "activation_function": "gelu", "scale_embedding": False, "bos_token_id": 0,
            "pad_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 2, "forced_eos_token_id": 2,
            "vocab_size": -(-(image_token + 1) // 64) * 64, **text,
        },
    }  # fmt: skip


def _heads(both: int) -> dict[str, int]:
    return {"encoder_attention_heads": both, "decoder_attention_heads": both}


SIZES = {
    "tiny": _config(
        {"embed_dim": [16, 32, 48, 64], "depths": [1, 1, 1, 1], "num_heads": [1, 2, 3, 4], "num_groups": [1, 2, 3, 4],
         "patch_stride": [4, 2, 2, 1], "window_size": 3},
        {"d_model": 48, "encoder_layers": 2, "decoder_layers": 2, "encoder_ffn_dim": 96, "decoder_ffn_dim": 80,
         "max_position_embeddings": 128, **_heads(3)},
        words=300,
    ),
    "real": _config(
        {"embed_dim": [128, 256, 512, 1024], "depths": [1, 1, 9, 1], "num_heads": [4, 8, 16, 32],
         "num_groups": [4, 8, 16, 32], "patch_stride": [4, 2, 2, 2], "window_size": 12},
        {"d_model": 768, "encoder_layers": 6, "decoder_layers": 6, "encoder_ffn_dim": 3072, "decoder_ffn_dim": 3072,
         "max_position_embeddings": 1024, **_heads(12)},
        words=50265,
    ),
}  # fmt: skip


def _side(config: Mapping[str, Any]) -> int:
    """Image side in pixels: 768 for the published strides, whose product is 32, and 96 for smaller ones."""
    return 768 if config["vision_config"]["patch_stride"][-1] == 2 else 96


def _grid(config: Mapping[str, Any]) -> int:
    """Side of the last feature grid."""
    vision, side = config["vision_config"], _side(config)
    for kernel, stride, padding in zip(
        vision["patch_size"], vision["patch_stride"], vision["patch_padding"], strict=True
    ):
        side = (side + 2 * padding - kernel) // stride + 1
    return side


def write_files(folder: Path, config: Mapping[str, Any]) -> None:
    """Write all files but the weights, in the layout of florence-community/Florence-2-base."""
    side = _side(config)
    write_json(
        folder,
        {
            "config.json": config,
            "generation_config.json": {
                "bos_token_id": 0, "pad_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 2,
                "forced_bos_token_id": 0, "forced_eos_token_id": 2, "no_repeat_ngram_size": 3, "num_beams": 3,
                "early_stopping": True,
            },
            "preprocessor_config.json": {
                "image_processor_type": "CLIPImageProcessor", "processor_class": "Florence2Processor",
                "do_resize": True, "do_center_crop": False, "do_rescale": True, "do_normalize": True, "resample": 3,
                "rescale_factor": 1 / 255, "size": {"height": side, "width": side}, "do_convert_rgb": None,
                "crop_size": {"height": side, "width": side}, "image_seq_length": _grid(config) ** 2 + 1,
                "image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225],
            },
            "tokenizer_config.json": {
                "tokenizer_class": "RobertaTokenizer", "processor_class": "Florence2Processor",
                "add_prefix_space": False, "model_max_length": 1024, "image_token": "<image>",
                "extra_special_tokens": {"image_token": "<image>"},
                **_NAMED,
            },
            "special_tokens_map.json": dict(_NAMED),
        },
    )  # fmt: skip
    _tokenizer(config["image_token_id"] - len(ADDED_TOKENS)).save(str(folder / "tokenizer.json"))


_NAMED = {
    "bos_token": "<s>", "cls_token": "<s>", "eos_token": "</s>", "sep_token": "</s>", "pad_token": "<pad>",
    "unk_token": "<unk>", "mask_token": "<mask>",
}  # fmt: skip


def _tokenizer(words: int) -> Tokenizer:
    """Every byte, made-up words and <mask>, then Florence-2's own tokens; without merges, text becomes single bytes."""
    fixed = [*_FIRST, *sorted(pre_tokenizers.ByteLevel.alphabet())]
    tokens = [*fixed, *islice(made_up_words(), words - len(fixed) - 1), "<mask>"]
    tokenizer = Tokenizer(models.BPE({token: index for index, token in enumerate(tokens)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    tokenizer.add_special_tokens([AddedToken(token, normalized=False) for token in (*_FIRST, "<mask>")])
    tokenizer.add_special_tokens([AddedToken(token, normalized=False) for token in (*ADDED_TOKENS, "<image>")])
    return tokenizer
