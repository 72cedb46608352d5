"""Our answers equal those of transformers' ``generate`` token for token in float32, log-probabilities to 1e-4."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.images import scenes
from tests.oracle import MINIATURES, Answer, Oracle, ask, ask_all, miniature_oracle
from vlm.loading import families, synthesize
from vlm.types import Completion, Sampling

FLORENCE_PROMPTS = (
    "<CAPTION>",
    "<DETAILED_CAPTION>",
    "<MORE_DETAILED_CAPTION>",
    "<OD>",
    "<OCR>",
    "<OCR_WITH_REGION>",
    "<CAPTION_TO_PHRASE_GROUNDING> a red circle left of a blue square",
    "<DENSE_REGION_CAPTION>",
    "<REGION_PROPOSAL>",
    "<OPEN_VOCABULARY_DETECTION> a red circle",
    "<REFERRING_EXPRESSION_SEGMENTATION> a blue square",
    "<REGION_TO_SEGMENTATION><loc_100><loc_150><loc_450><loc_500>",
    "<REGION_TO_CATEGORY><loc_0><loc_0><loc_999><loc_999>",
    "<REGION_TO_DESCRIPTION><loc_300><loc_300><loc_700><loc_650>",
    "<REGION_TO_OCR><loc_100><loc_150><loc_450><loc_500>",
)
KOSMOS_PROMPTS = (
    "<grounding>An image of",
    "An image of",
    "<grounding>Describe this image in detail:",
    "<grounding><phrase> a red circle</phrase>",
    "<grounding><phrase>It</phrase><object><patch_index_0044><patch_index_0463></object> is",
    "Question: How many shapes are there? Answer:",
    "<grounding> Question: What color is the circle? Answer:",
)
PROMPTS = {
    "blip": ("", "a picture of", "the word"),
    "florence2": FLORENCE_PROMPTS,
    "kosmos2": KOSMOS_PROMPTS,
}
DEFAULTS = {"blip-large": "", "florence-2-base": "<CAPTION>", "kosmos-2": "<grounding>An image of"}


def assert_equal(ours: Completion, theirs: Answer) -> None:
    assert ours.token_ids == theirs.token_ids
    assert ours.logprobs == pytest.approx(theirs.logprobs, abs=1e-4)


SEARCHES: tuple[dict[str, Any], ...] = (
    {"num_beams": 3, "early_stopping": True},
    {"num_beams": 3, "early_stopping": False, "length_penalty": 2.0},
    {"num_beams": 2, "early_stopping": False, "length_penalty": -1.0},
    {"num_beams": 5, "early_stopping": True, "length_penalty": 0.0},
)


@pytest.mark.parametrize("beams", [1, 3])
@pytest.mark.parametrize(
    ("name", "prompts"),
    [("blip-large", PROMPTS["blip"]), ("florence-2-base", PROMPTS["florence2"]), ("kosmos-2", PROMPTS["kosmos2"])],
)
def test_miniatures_equal_transformers(name: str, prompts: tuple[str, ...], beams: int) -> None:
    """More than 100 images for each model: batched in our engine, and one by one in transformers."""
    images = scenes(56, first=1000 * (beams - 1))
    how: dict[str, Any] = {"num_beams": beams, "early_stopping": beams > 1, "max_tokens": 60}
    asked = [(image, prompts[index % len(prompts)]) for index, image in enumerate(images)]
    ours = ask_all(MINIATURES / name, [ask(image, prompt, **how) for image, prompt in asked])
    for (image, prompt), answer in zip(asked, ours, strict=True):
        assert_equal(answer, miniature_oracle(name).answer(image, prompt, **how))


@pytest.mark.parametrize("name", DEFAULTS)
def test_every_kind_of_search_equals_transformers(name: str) -> None:
    """One batch has beams, length and repetition penalties, early and late ends, and answers that are cut."""
    kinds = [how | {"max_tokens": limit} for how in SEARCHES for limit in (2, 5, 40)]
    kinds += [SEARCHES[0] | {"max_tokens": 40, "repetition_penalty": 1.3, "no_repeat_ngram_size": 2}]
    asked = list(zip(scenes(len(kinds), first=300), kinds, strict=True))
    ours = ask_all(MINIATURES / name, [ask(image, DEFAULTS[name], **how) for image, how in asked])
    for (image, how), answer in zip(asked, ours, strict=True):
        assert_equal(answer, miniature_oracle(name).answer(image, DEFAULTS[name], **how))


def test_the_checkpoint_says_how_many_beams() -> None:
    """Florence-2's generation_config has three, early stopping, and a ban on trigrams."""
    images, prompt = scenes(24, first=40), "<DENSE_REGION_CAPTION>"
    by_itself = Sampling(max_tokens=60, logprobs=True)
    asked = [replace(ask(image, prompt), sampling=by_itself) for image in images]
    asked += [ask(image, prompt, max_tokens=60) for image in images]
    answers = ask_all(MINIATURES / "florence-2-base", asked)
    told = [index for index in range(24) if answers[index].token_ids != answers[24 + index].token_ids]
    assert told, "a search finds something else than greedy in one image of many, else nothing is tested"
    oracle = miniature_oracle("florence-2-base")
    theirs = oracle.model.generation_config
    how = {"num_beams": theirs.num_beams, "early_stopping": theirs.early_stopping}
    assert how == {"num_beams": 3, "early_stopping": True}
    for index in told[:2]:
        assert_equal(answers[index], oracle.answer(images[index], prompt, 60, **how))


@pytest.mark.parametrize(
    "settings",
    [{"no_repeat_ngram_size": 2}, {"repetition_penalty": 1.3}, {"no_repeat_ngram_size": 4, "repetition_penalty": 0.8}],
)
@pytest.mark.parametrize("name", DEFAULTS)
def test_bans_and_penalties_equal_transformers(name: str, settings: dict[str, Any]) -> None:
    images = scenes(6, first=100)
    ours = ask_all(MINIATURES / name, [ask(image, max_tokens=40, **settings) for image in images])
    for image, answer in zip(images, ours, strict=True):
        assert_equal(answer, miniature_oracle(name).answer(image, DEFAULTS[name], max_tokens=40, **settings))


@pytest.mark.parametrize("max_tokens", [1, 2, 3, 7])
@pytest.mark.parametrize("name", DEFAULTS)
def test_a_cut_answer_ends_like_the_reference(name: str, max_tokens: int) -> None:
    """Florence-2 forces its first token, and </s> at the last position."""
    [image] = scenes(1, first=7)
    [ours] = ask_all(MINIATURES / name, [ask(image, max_tokens=max_tokens)])
    assert_equal(ours, miniature_oracle(name).answer(image, DEFAULTS[name], max_tokens=max_tokens))
    assert ours.finish_reason == "length"


def resized(config: Mapping[str, Any], vision: Mapping[str, Any], text: Mapping[str, Any]) -> dict[str, Any]:
    changed = copy.deepcopy(dict(config))
    changed["vision_config"].update(vision)
    changed["text_config"].update(text)
    return changed


def configurations() -> list[Any]:
    """Other widths, heads and depths for each family, and the real dimensions on smaller images.

    At the real image size, ``python -m vlm.bench --config real`` makes the same comparison.
    """
    known = dict(families())
    blip, florence, kosmos = (known[name].sizes for name in ("blip", "florence2", "kosmos2"))
    wide = {"hidden_size": 64, "num_attention_heads": 2, "num_hidden_layers": 3, "intermediate_size": 80}
    return [
        pytest.param("blip", blip["tiny"], id="blip-tiny"),
        pytest.param(
            "blip",
            resized(blip["tiny"], {**wide, "patch_size": 12}, {"encoder_hidden_size": 64, "num_attention_heads": 8}),
            id="blip-wide-vision",
        ),
        pytest.param("blip", resized(blip["tiny"], {"num_hidden_layers": 1}, wide), id="blip-wide-text"),
        pytest.param("blip", resized(blip["real"], {"image_size": 192}, {}), id="blip-real", marks=pytest.mark.real),
        pytest.param("florence2", florence["tiny"], id="florence2-tiny"),
        pytest.param(
            "florence2",
            resized(
                florence["tiny"],
                {"depths": [2, 1, 2, 1], "window_size": 5, "patch_stride": [4, 2, 1, 1], "projection_dim": 64},
                {
                    "d_model": 64,
                    "encoder_attention_heads": 2,
                    "decoder_attention_heads": 4,
                    "max_position_embeddings": 256,
                },
            ),
            id="florence2-deep-vision",
        ),
        pytest.param(
            "florence2",
            resized(florence["tiny"], {}, {"encoder_layers": 1, "decoder_layers": 3, "scale_embedding": True}),
            id="florence2-scaled-embedding",
        ),
        pytest.param("florence2", florence["real"], id="florence2-real", marks=pytest.mark.real),
        pytest.param("kosmos2", kosmos["tiny"], id="kosmos2-tiny"),
        pytest.param(
            "kosmos2",
            resized(
                kosmos["tiny"],
                {"hidden_size": 64, "num_attention_heads": 2, "num_hidden_layers": 3, "patch_size": 8},
                {"embed_dim": 48, "attention_heads": 2, "layers": 3, "ffn_dim": 80, "scale_embedding": False},
            ),
            id="kosmos2-wide-vision",
        ),
        pytest.param(
            "kosmos2",
            resized(kosmos["real"], {"num_hidden_layers": 2}, {"layers": 2, "vocab_size": 4096}),
            id="kosmos2-shallow-real",
        ),
    ]


def shrink_images(folder: Path, side: int, positions: int) -> None:
    """Set the image size of the preprocessor, which Florence-2's config.json does not contain."""
    path = folder / "preprocessor_config.json"
    settings = json.loads(path.read_text())
    settings |= {"size": {"height": side, "width": side}, "image_seq_length": positions}
    path.write_text(json.dumps(settings))


@pytest.mark.parametrize(("family", "config"), configurations())
def test_random_weights_equal_transformers(
    family: str, config: Mapping[str, Any], request_id: str, tmp_path: Path
) -> None:
    """Synthetic weights of other sizes. An untrained model is sure of no token, so that any difference shows."""
    synthesize(dict(families())[family], tmp_path, config, 11)
    if request_id == "florence2-real":
        shrink_images(tmp_path, side=384, positions=12 * 12 + 1)
    count, max_tokens = (1, 8) if request_id.endswith("real") else (max(6, len(PROMPTS[family])), 16)
    prompts, searches = PROMPTS[family], ({"num_beams": 1}, SEARCHES[0])
    asked = [
        (image, prompts[index % len(prompts)], search | {"max_tokens": max_tokens})
        for index, image in enumerate(scenes(count, first=500))
        for search in searches
    ]
    ours = ask_all(tmp_path, [ask(image, prompt, **how) for image, prompt, how in asked])
    oracle = Oracle(tmp_path)
    for (image, prompt, how), answer in zip(asked, ours, strict=True):
        assert_equal(answer, oracle.answer(image, prompt, **how))


@pytest.fixture
def request_id(request: pytest.FixtureRequest) -> str:
    """The id of the running parameter set, as in ``test[florence2-real]``."""
    return str(request.node.callspec.id)
