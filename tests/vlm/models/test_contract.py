"""The contract that every model family keeps, checked on each folder of ``vlm.models`` with small synthesised weights.

A new family is found because its folder is there; no family is named here. For one family alone: ``-k <its folder>``.
"""

from __future__ import annotations

import asyncio
import importlib
import inspect
import random
from collections import abc
from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from tests.images import scene
from tests.oracle import without_scores
from vlm import models
from vlm.engine.config import EngineConfig
from vlm.engine.engine import Engine
from vlm.errors import InvalidImage, InvalidRequest
from vlm.layers.attention import Growing
from vlm.loading import families, load, synthesize
from vlm.models.base import LoadedModel, Sampled, VisionLanguageModel, normalised, pixel_table
from vlm.models.cards import Card, TaskCard
from vlm.models.processor import NO_PIXELS, Inputs, Parsed, ProcessedImage, Processor
from vlm.types import Box, Completion, Detection, Point, Request, Sampling, Task

FAMILIES = dict(families())
CONFIG = EngineConfig(cache_bytes=32 * 1024**2)


@dataclass(frozen=True)
class Subject:
    """One family: its model with synthesised weights, in a running engine."""

    loaded: LoadedModel
    cards: tuple[Card, ...]
    engine: Engine

    @property
    def tasks(self) -> list[TaskCard]:
        return [task for task in self.cards[0].tasks if task.name in self.loaded.processor.tasks]


@pytest.fixture(scope="module", params=FAMILIES)
def subject(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Subject]:
    family = FAMILIES[request.param]
    folder = tmp_path_factory.mktemp(request.param)
    synthesize(family, folder, family.sizes["tiny"], 5)
    loaded = load(folder, dtype="float32", device="cpu")
    with Engine(loaded, CONFIG) as engine:
        yield Subject(loaded, _cards_of(request.param), engine)
        stats = engine.stats()
    assert (stats.accepted, stats.running, stats.waiting, stats.used_blocks) == (0, 0, 0, 0), "something leaked"


def _cards_of(family: str) -> tuple[Card, ...]:
    found: tuple[Card, ...] = importlib.import_module(f"vlm.models.{family}.card").CARDS
    return found


def some_task(card: TaskCard, rng: random.Random) -> Task:
    """The task with all arguments that it needs."""
    given = {"labels": ("red circle",), "text": "a red circle", "region": Box(0.1, 0.2, 0.6, 0.7)}
    assert set(card.needs) <= set(given), "a new kind of argument: add a value for it here"
    return Task(card.name, **{name: given[name] for name in card.needs})  # type: ignore[arg-type]


def requests(subject: Subject, count: int, **sampling: object) -> list[Request]:
    """So many requests: all tasks in turn, on different images."""
    rng = random.Random(1)
    tasks = [some_task(card, rng) for card in subject.tasks]
    how = Sampling(max_tokens=24, **sampling)  # type: ignore[arg-type]
    return [Request(scene(index), task=tasks[index % len(tasks)], sampling=how) for index in range(count)]


async def together(engine: Engine, asked: abc.Sequence[Request]) -> list[Completion]:
    return await asyncio.gather(*map(engine.complete, asked))


async def one_by_one(engine: Engine, asked: abc.Sequence[Request]) -> list[Completion]:
    return [await engine.complete(request) for request in asked]


def content(completion: Completion) -> tuple[object, ...]:
    return completion.token_ids, completion.text, without_scores(completion.grounding), completion.finish_reason


@pytest.mark.parametrize(
    "how", [{"num_beams": 1}, {"num_beams": 3}, {"temperature": 1.2, "seed": 3}], ids=["greedy", "beams", "seeded"]
)
def test_batched_equals_alone(subject: Subject, how: dict[str, object]) -> None:
    if how.get("num_beams") == 3 and not subject.loaded.model.beam_search:
        pytest.skip("this model has no beam search")
    asked = requests(subject, 12, **how)
    alone = asyncio.run(one_by_one(subject.engine, asked))
    assert list(map(content, asyncio.run(together(subject.engine, asked)))) == list(map(content, alone))


def test_tasks_asked_together_are_each_alone(subject: Subject) -> None:
    first, *others = requests(subject, len(subject.tasks))
    alone = [first, *(replace(first, task=other.task) for other in others)]
    together = replace(first, task=None, tasks=tuple(one.task for one in alone if one.task is not None))
    whole = asyncio.run(subject.engine.complete(together))
    assert list(map(content, whole.parts)) == list(map(content, asyncio.run(one_by_one(subject.engine, alone))))


def test_the_card_names_beams_where_there_are_some(subject: Subject) -> None:
    for card in subject.cards:
        assert card.beam_search == subject.loaded.model.beam_search


def test_nothing_but_the_pixels_depends_on_the_pixels(subject: Subject) -> None:
    processor = subject.loaded.processor
    for request in requests(subject, len(subject.tasks)):
        whole = processor.prepare(request)
        size = whole.image_size
        assert size is not None
        draft = processor.prepare(request, lambda _, size=size: ProcessedImage(NO_PIXELS, size))  # type: ignore[misc]
        assert draft.pixels is NO_PIXELS
        assert replace(draft, pixels=None) == replace(whole, pixels=None)


def features_of(loaded: LoadedModel, inputs: abc.Sequence[Inputs]) -> list[Tensor]:
    """What the vision encoder makes of each image."""
    table = pixel_table(loaded.model, loaded.processor)
    return list(loaded.model.encode_images([normalised(one.pixels, table) for one in inputs if one.pixels is not None]))


@dataclass(frozen=True)
class Alone:
    """The only row of a step."""

    inputs: Inputs
    generated: abc.Sequence[int]


@torch.inference_mode()
def recomputed(loaded: LoadedModel, inputs: Inputs, count: int) -> list[int]:
    """Greedy ids, each from all positions computed anew: no cache, no batch, no sampler."""
    generated: list[int] = []
    for _ in range(count):
        hidden = forward_once(loaded, inputs, generated)
        step = loaded.model.decode(
            hidden[:, -1], [Alone(inputs, generated)], lambda logits: Sampled(logits.argmax(dim=-1), None)
        )
        generated.append(int(step.tokens))
    return generated


def forward_once(loaded: LoadedModel, inputs: Inputs, generated: abc.Sequence[int]) -> Tensor:
    features = features_of(loaded, [inputs])
    prompts = loaded.model.embed([inputs], features, [generated])
    encoded, layers = prompts.encoded, range(loaded.model.cache.layers)
    cross = [] if encoded is None else [loaded.model.cross_keys_values(layer, encoded) for layer in layers]
    prefix = loaded.model.cache.prefix_positions if features else 0
    context = Growing(cross, prefix)
    if prefix:
        context.advance(prefix)
        loaded.model.forward(loaded.model.embed_prefix(features), context)
    context.advance(prompts.lengths[0])
    return loaded.model.forward(prompts.embeddings, context)


def test_prefill_then_decode_equals_full_forwards(subject: Subject) -> None:
    plain = {"repetition_penalty": 1.0, "no_repeat_ngram_size": 0, "forced_tokens": (), "num_beams": 1}
    for request in requests(subject, len(subject.tasks), **plain):
        completion = asyncio.run(subject.engine.complete(request))
        count = len(completion.token_ids) - (completion.finish_reason == "length")  # the last token may be forced
        expected = recomputed(subject.loaded, subject.loaded.processor.prepare(request), count)
        assert list(completion.token_ids[:count]) == expected


def test_what_was_generated_can_be_read_again_with_the_prompt(subject: Subject) -> None:
    """As for a preempted sequence: the embeddings are the same, whatever else is in the batch."""
    model = subject.loaded.model
    all_inputs = [subject.loaded.processor.prepare(request) for request in requests(subject, 3)]
    generated = [[], [1, 5, 7], [2]]
    with torch.inference_mode():
        prompts = model.embed(all_inputs, features_of(subject.loaded, all_inputs), generated)
        for row, (inputs, ids) in enumerate(zip(all_inputs, generated, strict=True)):
            alone = model.embed([inputs], features_of(subject.loaded, [inputs]), [ids])
            assert prompts.lengths[row] == alone.lengths[0] == len(inputs.prompt_ids) + len(ids)
            length = alone.lengths[0]
            torch.testing.assert_close(prompts.embeddings[row, :length], alone.embeddings[0])
            if prompts.encoded is not None:
                assert alone.encoded is not None
                size = prompts.encoded_lengths[row]
                assert size <= model.cache.cross_positions
                torch.testing.assert_close(prompts.encoded[row, :size], alone.encoded[0], atol=1e-4, rtol=1e-3)


def test_prompts_leave_room_for_an_answer(subject: Subject) -> None:
    for request in requests(subject, len(subject.tasks)):
        inputs = subject.loaded.processor.prepare(request)
        assert 1 <= len(inputs.prompt_ids) < subject.loaded.model.cache.max_positions
        assert 0 <= inputs.echo <= len(inputs.prompt_ids)


@pytest.mark.parametrize("finished", [True, False])
def test_any_ids_can_be_parsed(subject: Subject, finished: bool) -> None:
    """Also ids that the tokenizer does not have: embedding matrices have more rows than vocabularies tokens."""
    rng, processor = random.Random(2), subject.loaded.processor
    for request in requests(subject, len(subject.tasks)):
        inputs = processor.prepare(request)
        for length in (0, 1, 2, 5, 20, 60):
            ids = [rng.randrange(subject.loaded.model.vocabulary) for _ in range(length)]
            parsed = processor.parse(ids, inputs, finished=finished)
            assert_well_formed(parsed)
            assert isinstance(processor.decode(ids, special=True), str)


def assert_well_formed(parsed: Parsed) -> None:
    for detection in parsed.detections:
        assert_box(detection)
        corners = [*(detection.quad or ()), *(point for one in detection.polygons or () for point in one)]
        assert all(map(within, corners))
        assert detection.point is None or within(detection.point)
        text = parsed.text or ""
        assert all(0 <= start <= end <= len(text) for start, end in detection.spans)


def assert_box(detection: Detection) -> None:
    box = detection.box
    if detection.kind == "point":
        assert detection.point is not None
        return
    assert box is not None
    assert 0 <= box.x_min <= box.x_max <= 1
    assert 0 <= box.y_min <= box.y_max <= 1


def within(point: Point) -> bool:
    return 0 <= point.x <= 1 and 0 <= point.y <= 1


def test_clients_that_leave_release_everything(subject: Subject) -> None:
    """The fixture checks at the end that nothing is still held."""

    async def leaves(request: Request, delay: float) -> None:
        task = asyncio.ensure_future(subject.engine.complete(request))
        await asyncio.sleep(delay)
        task.cancel()
        await asyncio.wait([task])

    async def all_leave() -> None:
        await asyncio.gather(*(leaves(one, 0.002 * index) for index, one in enumerate(requests(subject, 20))))

    asyncio.run(all_leave())
    assert asyncio.run(subject.engine.complete(requests(subject, 1)[0])).token_ids


def test_defaults_have_every_field_that_a_request_may_leave_open(subject: Subject) -> None:
    defaults = subject.loaded.model.defaults
    optional = {field.name for field in fields(Sampling) if field.default is None} - {"seed", "forced_last_token"}
    assert {name for name in optional if getattr(defaults, name) is None} == set()
    assert subject.loaded.model.eos_token_ids
    assert all(0 <= token < subject.loaded.model.vocabulary for token in subject.loaded.model.eos_token_ids)


def test_every_task_is_on_the_card(subject: Subject) -> None:
    assert subject.loaded.processor.tasks
    assert subject.cards
    for card in subject.cards:
        assert {task.name for task in card.tasks} == set(subject.loaded.processor.tasks)


def test_a_task_without_what_it_needs_is_refused(subject: Subject) -> None:
    wanted = {"labels": "labels: what", "text": "a text(: the| or a region)", "region": "a region: "}
    for task in subject.tasks:
        for name in task.needs:
            with pytest.raises(InvalidRequest, match=f"needs {wanted[name]}") as caught:
                subject.loaded.processor.prepare(Request(scene(0), " ", task=Task(task.name)))
            assert (caught.value.param, caught.value.code) == (f"task.{name}", "invalid_value")


def test_a_broken_image_is_refused(subject: Subject) -> None:
    for request in requests(subject, len(subject.tasks)):
        with pytest.raises(InvalidImage) as caught:
            subject.loaded.processor.prepare(replace(request, image=scene(0)[: len(scene(0)) // 2]))
        assert caught.value.code == "image_parse_error"


def test_a_family_has_sizes_of_the_model_types_that_it_serves(subject: Subject) -> None:
    family = FAMILIES[subject.loaded.family]
    assert set(family.sizes) >= {"tiny", "real"}
    assert all(config["model_type"] in family.model_types for config in family.sizes.values())


def test_every_part_of_the_contract_is_there(subject: Subject) -> None:
    """Under its name, and methods with the parameters that the engine passes."""
    for protocol, part in ((Processor, subject.loaded.processor), (VisionLanguageModel, subject.loaded.model)):
        methods = {name for name, value in vars(protocol).items() if inspect.isfunction(value) and name[0] != "_"}
        properties = {name for name, value in vars(protocol).items() if isinstance(value, property)}
        assert methods
        missing = [
            name for name in methods | properties | {*inspect.get_annotations(protocol)} if not hasattr(part, name)
        ]
        assert missing == []
        for name in methods:
            expected = inspect.signature(getattr(protocol, name)).parameters
            assert list(inspect.signature(getattr(type(part), name)).parameters) == list(expected), name


def test_every_folder_with_a_model_is_a_family() -> None:
    """One that does not import is left out by ``families()``, and would not be tested."""
    assert [path.parent.name for path in sorted(Path(models.__path__[0]).glob("*/model.py"))] == list(FAMILIES)


def test_no_model_type_is_served_twice() -> None:
    kinds = [kind for family in FAMILIES.values() for kind in family.model_types]
    assert len(kinds) == len(set(kinds))


@pytest.mark.parametrize("name", FAMILIES)
def test_the_same_seed_synthesises_the_same_folder(name: str, tmp_path: Path) -> None:
    family = FAMILIES[name]
    for folder, seed in (("one", 1), ("again", 1), ("other", 2)):
        synthesize(family, tmp_path / folder, family.sizes["tiny"], seed)
    one, again, other = (
        {path.name: path.read_bytes() for path in sorted((tmp_path / folder).iterdir())}
        for folder in ("one", "again", "other")
    )
    assert one == again
    assert {file for file in one if one[file] != other[file]} == {"model.safetensors"}
