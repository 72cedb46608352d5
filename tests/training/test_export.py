"""Exported checkpoints load, and the engine answers as transformers does."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import cast

import pytest
import torch

from tests.oracle import Oracle, ask, ask_all
from tests.training.recipes import batches, untrained
from training.data.drawing import draw, png
from training.data.world import scene
from training.export import compact
from training.kosmos2.recipe import TrainableKosmos2
from training.kosmos2.tasks import all_examples
from training.losses import by_length
from training.moondream2.context import Continuation, Prefix
from training.moondream2.recipe import TrainableMoondream2
from vlm.layers.attention import Growing
from vlm.loading import load

LARGEST, LARGEST_TOGETHER = 4_500_000, 12_000_000
"""Maximum size in bytes of one checkpoint and of all: they are part of the repository."""
PROMPTS = {"blip-large": "", "florence-2-base": "<DETAILED_CAPTION>", "kosmos-2": "<grounding>An image of"}


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.set_num_threads(1)
    return tmp_path_factory.mktemp("exported")


def export(name: str, folder: Path) -> Path:
    path = folder / name
    if not path.exists():
        path.mkdir()
        untrained(name).export(path)
        compact(path)
    return path


@pytest.mark.parametrize("name", PROMPTS)
def test_our_engine_and_transformers_read_the_same_checkpoint(name: str, exported: Path) -> None:
    folder = export(name, exported)
    oracle = Oracle(folder)
    images = [png(draw(scene(seed), 200)) for seed in (1, 2)]
    answers = ask_all(folder, [ask(image, PROMPTS[name], max_tokens=12) for image in images])
    for image, answer in zip(images, answers, strict=True):
        assert answer.token_ids == oracle.answer(image, PROMPTS[name], max_tokens=12).token_ids


FAMILIES = {"blip-large": "blip", "florence-2-base": "florence2", "kosmos-2": "kosmos2", "moondream-2": "moondream2"}


@pytest.mark.parametrize(("name", "family"), FAMILIES.items())
def test_a_checkpoint_is_small_and_loads(name: str, family: str, exported: Path) -> None:
    folder = export(name, exported)
    loaded = load(folder, dtype="float32", device="cpu")
    assert loaded.family == family
    parameters = list(cast(torch.nn.Module, loaded.model).parameters())
    assert all(one.dtype == torch.float32 and one.isfinite().all() for one in parameters)
    assert 0 < sum(one.numel() for one in parameters) < size_of(folder)
    assert size_of(folder) < LARGEST


def test_all_checkpoints_together_are_small(exported: Path) -> None:
    assert sum(size_of(export(name, exported)) for name in [*PROMPTS, "moondream-2"]) < LARGEST_TOGETHER


def size_of(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.iterdir())


def test_moondream2_answers_every_task(exported: Path) -> None:
    folder = export("moondream-2", exported)
    image = png(draw(scene(3), 200))
    [answer] = ask_all(folder, [ask(image, "How many shapes are there?", max_tokens=4)])
    assert answer.usage.image_tokens == 65


def test_examples_that_share_an_image_give_the_same_logits_as_alone() -> None:
    """Kosmos-2's examples share the keys and values of the image before their prompts."""
    trainable = untrained("kosmos-2")
    assert isinstance(trainable, TrainableKosmos2)
    batch = batches("kosmos-2").step(0)
    picked = [one for each in batch.scenes for one in all_examples(each, batch.rng)[:2]]
    with torch.no_grad():
        latents, _ = trainable.model.image_to_text_projection(torch.randn(len(batch.scenes), 65, 128))
        shared, targets = trainable._answers(latents, picked)
        apart = [trainable._answers(latents[index // 2 : index // 2 + 1], [one]) for index, one in enumerate(picked)]
    order = [index for group in by_length([trainable._row(one)[0] for one in picked]) for index in group]
    assert torch.equal(torch.cat([apart[index][1] for index in order]), targets)
    torch.testing.assert_close(torch.cat([apart[index][0] for index in order]), shared, rtol=1e-4, atol=1e-4)


def test_moondream2_trains_on_the_hidden_states_that_the_engine_computes() -> None:
    """Training computes the same hidden states as a sequence that grows step by step."""
    trainable = untrained("moondream-2")
    assert isinstance(trainable, TrainableMoondream2)
    transformer = trainable.model.text.transformer
    width = trainable.model.text.spec.width
    before, after = torch.randn(2, 65, width), torch.randn(4, 7, width)
    with torch.no_grad():
        prefix = Prefix(65)
        transformer(before, prefix)
        trained = transformer(after, Continuation(prefix, [0, 0, 1, 1], 7))
        for row in range(4):
            growing = Growing(prefix=65)
            grow = partial(_grown, transformer, growing)
            grow(before[row // 2 : row // 2 + 1])
            torch.testing.assert_close(trained[row : row + 1], grow(after[row : row + 1]), rtol=1e-4, atol=1e-4)


def _grown(transformer: torch.nn.Module, growing: Growing, embeddings: torch.Tensor) -> torch.Tensor:
    growing.advance(embeddings.shape[1])
    out: torch.Tensor = transformer(embeddings, growing)
    return out
