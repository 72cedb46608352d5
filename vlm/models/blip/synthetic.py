"""Writes the files beside BLIP's weights: layout and special ids as published, the other words made up."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import islice
from pathlib import Path
from string import ascii_lowercase, digits
from typing import Any

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

from vlm.checkpoint.synthesis import made_up_words, write_json

_SPECIAL = {"[PAD]": 0, "[UNK]": 100, "[CLS]": 101, "[SEP]": 102, "[MASK]": 103}  # the ids of bert-base-uncased


def _config(vision: Mapping[str, int], text: Mapping[str, int]) -> dict[str, Any]:
    vocabulary = text["vocab_size"]
    return {
        "model_type": "blip",
        "architectures": ["BlipForConditionalGeneration"],
        "vision_config": {"model_type": "blip_vision_model", "hidden_act": "gelu", "layer_norm_eps": 1e-5, **vision},
        "text_config": {
            "model_type": "blip_text_model", "hidden_act": "gelu", "layer_norm_eps": 1e-12, "is_decoder": True,
            "bos_token_id": vocabulary - 2, "eos_token_id": 2, "pad_token_id": 0, "sep_token_id": _SPECIAL["[SEP]"],
            "encoder_hidden_size": vision["hidden_size"], **text,
        },
    }  # fmt: skip


SIZES = {
    "tiny": _config(
        {"hidden_size": 48, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 3,
         "image_size": 48, "patch_size": 16},
        {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
         "max_position_embeddings": 64, "vocab_size": 260},
    ),
    "real": _config(
        {"hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24, "num_attention_heads": 16,
         "image_size": 384, "patch_size": 16},
        {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12,
         "max_position_embeddings": 512, "vocab_size": 30524},
    ),
}  # fmt: skip


def write_files(folder: Path, config: Mapping[str, Any]) -> None:
    """Write all files but the weights, in the layout of Salesforce/blip-image-captioning-large."""
    text, side = config["text_config"], config["vision_config"]["image_size"]
    vocabulary = _vocabulary(text["vocab_size"])
    write_json(
        folder,
        {
            "config.json": config,
            "generation_config.json": {"bos_token_id": text["bos_token_id"], "eos_token_id": 2, "pad_token_id": 0},
            "preprocessor_config.json": {
                "image_processor_type": "BlipImageProcessor", "processor_class": "BlipProcessor",
                "do_resize": True, "do_rescale": True, "do_normalize": True, "resample": 3,
                "rescale_factor": 1 / 255, "size": {"height": side, "width": side},
                "image_mean": [0.48145466, 0.4578275, 0.40821073],
                "image_std": [0.26862954, 0.26130258, 0.27577711],
            },
            "tokenizer_config.json": {
                "tokenizer_class": "BertTokenizer", "processor_class": "BlipProcessor", "do_lower_case": True,
                "model_max_length": 512,
                **{f"{name[1:-1].lower()}_token": name for name in _SPECIAL},
            },
            "special_tokens_map.json": {f"{name[1:-1].lower()}_token": name for name in _SPECIAL},
        },
    )  # fmt: skip
    (folder / "vocab.txt").write_text("\n".join(vocabulary) + "\n", encoding="utf-8")
    _tokenizer(vocabulary).save(str(folder / "tokenizer.json"))


def _vocabulary(size: int) -> list[str]:
    """[unused..] up to the special ids, letters and their ## forms, made-up words, and last [DEC] and [ENC]."""
    letters = [*ascii_lowercase, *digits, ".", ",", "'"]
    fixed = [f"[unused{index}]" for index in range(104)]
    for token, index in _SPECIAL.items():
        fixed[index] = token
    fixed += [*letters, *(f"##{letter}" for letter in ascii_lowercase)]
    return [*fixed, *islice(made_up_words(), size - len(fixed) - 2), "[DEC]", "[ENC]"]


def _tokenizer(vocabulary: list[str]) -> Tokenizer:
    ids = {token: index for index, token in enumerate(vocabulary)}
    tokenizer = Tokenizer(models.WordPiece(ids, unk_token="[UNK]", max_input_chars_per_word=100))  # noqa: S106
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[(name, _SPECIAL[name]) for name in ("[CLS]", "[SEP]")]
    )
    tokenizer.decoder = decoders.WordPiece()
    tokenizer.add_special_tokens([*_SPECIAL, "[DEC]", "[ENC]"])
    return tokenizer
