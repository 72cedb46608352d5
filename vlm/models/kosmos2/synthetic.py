"""Writes the files beside Kosmos-2's weights: layout and special ids as published, the other words made up."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import islice
from pathlib import Path
from string import ascii_letters, digits
from typing import Any

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors

from vlm.checkpoint.synthesis import made_up_words, write_json
from vlm.models.kosmos2.vocabulary import ADDED_TOKENS

_FIRST = ("<s>", "<pad>", "</s>", "<unk>")
_NAMED = {
    "bos_token": "<s>", "cls_token": "<s>", "eos_token": "</s>", "sep_token": "</s>", "pad_token": "<pad>",
    "unk_token": "<unk>", "mask_token": "<mask>",
}  # fmt: skip


def _config(vision: Mapping[str, int], text: Mapping[str, int]) -> dict[str, Any]:
    return {
        "model_type": "kosmos-2",
        "architectures": ["Kosmos2ForConditionalGeneration"],
        "latent_query_num": 64,
        "vision_config": {
            "model_type": "kosmos_2_vision_model", "hidden_act": "quick_gelu", "layer_norm_eps": 1e-5,
            "num_channels": 3, **vision,
        },
        "text_config": {
            "model_type": "kosmos_2_text_model", "activation_function": "gelu", "layer_norm_eps": 1e-5,
            "scale_embedding": True, "add_cross_attention": False, "bos_token_id": 0, "pad_token_id": 1,
            "eos_token_id": 2, "dropout": 0.1, "attention_dropout": 0.1, "activation_dropout": 0.0, "layerdrop": 0.0,
            **text,
        },
    }  # fmt: skip


SIZES = {
    "tiny": _config(
        {"hidden_size": 48, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 3,
         "image_size": 48, "patch_size": 12},
        {"embed_dim": 32, "ffn_dim": 64, "layers": 2, "attention_heads": 4, "max_position_embeddings": 256,
         "vocab_size": 1240},
    ),
    "real": _config(
        {"hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24, "num_attention_heads": 16,
         "image_size": 224, "patch_size": 14},
        {"embed_dim": 2048, "ffn_dim": 8192, "layers": 24, "attention_heads": 32, "max_position_embeddings": 2048,
         "vocab_size": 65037},
    ),
}  # fmt: skip


def write_files(folder: Path, config: Mapping[str, Any]) -> None:
    """Write all files but the weights, in the layout of microsoft/kosmos-2-patch14-224."""
    write_json(
        folder,
        {
            "config.json": config,
            "generation_config.json": {
                "bos_token_id": 0, "pad_token_id": 1, "eos_token_id": 2, "no_repeat_ngram_size": 3,
            },
            "preprocessor_config.json": {
                "image_processor_type": "CLIPImageProcessor", "processor_class": "Kosmos2Processor",
                "do_resize": True, "do_center_crop": True, "do_rescale": True, "do_normalize": True, "resample": 3,
                "rescale_factor": 1 / 255, "do_convert_rgb": True, **_image_size(config),
                "image_mean": [0.48145466, 0.4578275, 0.40821073],
                "image_std": [0.26862954, 0.26130258, 0.27577711],
            },
            "tokenizer_config.json": {
                "tokenizer_class": "XLMRobertaTokenizer", "processor_class": "Kosmos2Processor",
                "model_max_length": 2048, **_NAMED,
            },
            "special_tokens_map.json": dict(_NAMED),
        },
    )  # fmt: skip
    _tokenizer(config["text_config"]["vocab_size"]).save(str(folder / "tokenizer.json"))


def _image_size(config: Mapping[str, Any]) -> dict[str, Any]:
    """The published form for the published size: transformers 5 reads every size in that form as 224."""
    side = config["vision_config"]["image_size"]
    square = {"height": side, "width": side}
    if side == 224:
        return {"size": {"shortest_edge": side}, "crop_size": square, "use_square_size": True}
    return {"size": square, "crop_size": square}


def _tokenizer(size: int) -> Tokenizer:
    """A Unigram model: the special tokens, letters and made-up words, then <mask> and the tags."""
    tokens = [*_FIRST, "▁", *ascii_letters, *digits, *".,:;?!'\"-()<>/"]
    words = islice(made_up_words(), size - len(tokens) - 1 - len(ADDED_TOKENS))
    tokens += [f"▁{word}" for word in words] + ["<mask>"]
    tokenizer = Tokenizer(models.Unigram([(token, -float(bool(index))) for index, token in enumerate(tokens)], 3))
    space = pre_tokenizers.Metaspace(prepend_scheme="always")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), space])
    tokenizer.decoder = decoders.Metaspace(prepend_scheme="always")
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    tokenizer.add_special_tokens([AddedToken(token, normalized=False) for token in (*_FIRST, "<mask>")])
    tokenizer.add_tokens([AddedToken(token, lstrip=True, normalized=False) for token in ADDED_TOKENS])
    return tokenizer
