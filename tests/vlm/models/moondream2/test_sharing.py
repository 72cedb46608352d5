"""Moondream 2 in a full engine: images shared by many, company that comes and goes, and images of every kind."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncGenerator, Iterable
from collections.abc import Sequence as Rows
from dataclasses import replace
from io import BytesIO
from typing import cast

import pytest
from PIL import Image

from tests.images import encoded, png, scene
from tests.oracle import without_scores
from tests.vlm.engine.world import faulty_model, least_bytes
from vlm.engine.blocks import BLOCK_SIZE, blocks_for
from vlm.engine.config import EngineConfig
from vlm.engine.engine import Engine
from vlm.engine.scheduler import Scheduler
from vlm.errors import EngineFailure, InvalidImage
from vlm.loading import load, synthesize
from vlm.models.base import LoadedModel
from vlm.models.moondream2.model import FAMILY
from vlm.types import Box, Chunk, Completion, Point, Request, Sampling, Task

SIZES = ((10, 10), (31, 101), (31, 129), (31, 38), (31, 31), (31, 52), (31, 66))
"""Of images that are cut into 1, 7, 8, 9, 10, 11 and 13 crops."""


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    folder = tmp_path_factory.mktemp("moondream2")
    synthesize(FAMILY, folder, FAMILY.sizes["tiny"], 7)
    return load(folder, dtype="float32", device="cpu")


def config(loaded: LoadedModel, blocks: int = 2000, encoder_cache_bytes: int = 2**20) -> EngineConfig:
    return EngineConfig(
        max_batch=32,
        cache_bytes=least_bytes(loaded, 0, blocks),
        encoder_cache_bytes=encoder_cache_bytes,
        prepare_threads=2,
    )


def questions(count: int, image: bytes) -> list[Request]:
    """All different, about one image."""
    asked = (f"What is the colour of {'the ' * (number % 5)}shape {number}?" for number in range(count))
    return [
        Request(image, text, sampling=Sampling(max_tokens=5 + number, temperature=1.0, seed=number))
        for number, text in enumerate(asked)
    ]


def mixed(count: int, seed: int = 0) -> list[Request]:
    """Every task, with and without an image, on images of different numbers of crops."""
    rng = random.Random(seed)
    images = [png(Image.open(BytesIO(scene(index))).resize(size)) for index, size in enumerate(SIZES)]
    about = (Point(0.25, 0.5), Box(0.1, 0.2, 0.5, 0.9))
    tasks = (
        Task("caption", length="short"), Task("caption", length="long"), Task("query", text="What is it?"),
        Task("query", text="Which colour?", references=about), Task("query", text="How many?", reasoning=True),
        Task("detect", ("circle",), max_objects=4), Task("point", ("red square",), max_objects=9),
        Task("ground", text="a blue shape", max_objects=2),
    )  # fmt: skip

    def one(number: int) -> Request:
        how = Sampling(max_tokens=rng.choice([1, 7, 30, 140]), temperature=rng.choice([0.0, 1.3]), seed=number)
        task = tasks[number % len(tasks)]
        blind = task.name == "query" and not task.references and rng.random() < 0.5
        return Request(None if blind else rng.choice(images), task=task, sampling=how)

    return [one(number) for number in range(count)]


def comparable(completion: Completion) -> tuple[object, ...]:
    usage = replace(completion.usage, cached_tokens=0)
    return completion.token_ids, completion.text, without_scores(completion.grounding), completion.finish_reason, usage


def alone(loaded: LoadedModel, asked: Iterable[Request]) -> list[tuple[object, ...]]:
    async def one_by_one(engine: Engine) -> list[Completion]:
        return [await engine.complete(request) for request in asked]

    with Engine(loaded, config(loaded)) as engine:
        return list(map(comparable, asyncio.run(one_by_one(engine))))


async def together(engine: Engine, asked: Iterable[Request]) -> list[Completion]:
    return await asyncio.gather(*map(engine.complete, asked))


def scheduler_of(engine: Engine) -> Scheduler:
    return engine._core.scheduler


async def assert_empty(engine: Engine) -> None:
    """Nobody is there any more, and images are all that is kept."""
    async with asyncio.timeout(10):
        while (stats := engine.stats()).accepted or stats.running or stats.waiting:
            await asyncio.sleep(0.01)
    scheduler = scheduler_of(engine)
    assert stats.used_blocks == 0
    assert scheduler.pool.used == scheduler.prefixes.blocks == stats.cached_blocks


# One image


def test_questions_about_one_image_share_its_encode_and_its_blocks(loaded: LoadedModel) -> None:
    prefix, most = loaded.model.cache.prefix_positions, 0
    counts: list[tuple[int, int]] = []
    computed: list[int] = []
    asked = questions(32, scene(1))

    def note_prefix(features: Rows[object]) -> None:
        computed.append(len(features))

    def count_blocks(*_: object) -> None:
        nonlocal most
        scheduler = scheduler_of(engine)
        beams = [beam for sequence in scheduler.running for beam in sequence.beams]
        own = [blocks_for(beam.length) - prefix // BLOCK_SIZE for beam in beams]
        counts.append((scheduler.pool.used, blocks_for(prefix) + sum(own)))
        most = max(most, len(beams))

    watched = faulty_model(faulty_model(loaded, "embed_prefix", note_prefix), "forward", count_blocks)
    with Engine(watched, config(loaded)) as engine:
        answers = asyncio.run(together(engine, asked))
        stats = engine.stats()
        asyncio.run(assert_empty(engine))
    assert computed == [1]
    assert (stats.images_encoded, stats.image_hits) == (1, 31)
    assert sorted(one.usage.cached_tokens for one in answers) == [0, *[prefix] * 31]
    assert most > 24, "too few ran at once to say anything"
    assert all(used == expected for used, expected in counts)
    assert stats.cached_blocks == blocks_for(prefix)
    assert list(map(comparable, answers)) == alone(loaded, asked)


def test_an_image_that_is_given_up_when_blocks_run_out_is_not_encoded_again(loaded: LoadedModel) -> None:
    """Its features are still there, and only its keys and values are computed anew."""
    images = [scene(index) for index in range(12)]

    async def twice(engine: Engine) -> None:
        for image in [*images, *images]:
            await engine.complete(Request(image, "What is it?", sampling=Sampling(max_tokens=3)))

    with Engine(loaded, config(loaded, blocks=18)) as engine:
        asyncio.run(twice(engine))
        stats = engine.stats()
    assert stats.cached_blocks < 12 * blocks_for(loaded.model.cache.prefix_positions)
    assert (stats.images_encoded, stats.image_hits) == (12, 12)


def test_an_image_that_could_not_be_encoded_is_encoded_again(loaded: LoadedModel) -> None:
    calls = []

    def fail_once(*_: object) -> None:
        calls.append(1)
        if len(calls) == 1:
            raise RuntimeError("a step that fails")

    async def work(engine: Engine) -> list[Completion]:
        answers = await asyncio.gather(*map(engine.complete, asked), return_exceptions=True)
        assert any(isinstance(one, EngineFailure) for one in answers)
        await assert_empty(engine)
        return await together(engine, asked)

    asked = questions(12, scene(1))
    with Engine(faulty_model(loaded, "embed_prefix", fail_once), config(loaded)) as engine:
        answers = asyncio.run(work(engine))
    assert len(calls) == 2
    assert list(map(comparable, answers)) == alone(loaded, asked)


# Company


@pytest.fixture(scope="module")
def expected(loaded: LoadedModel) -> list[tuple[object, ...]]:
    return alone(loaded, mixed(48))


@pytest.mark.parametrize(("blocks", "encoder_cache_bytes"), [(2000, 2**20), (2000, 0), (20, 2**20), (20, 0)])
def test_answers_do_not_depend_on_other_requests(
    loaded: LoadedModel, expected: list[tuple[object, ...]], blocks: int, encoder_cache_bytes: int
) -> None:
    asked = mixed(len(expected))

    async def work(engine: Engine) -> list[Completion]:
        answers = await together(engine, asked)
        await assert_empty(engine)
        return answers

    prefills: list[int] = []
    watched = faulty_model(loaded, "embed", lambda inputs, *_: prefills.append(len(inputs)))
    with Engine(watched, config(loaded, blocks, encoder_cache_bytes)) as engine:
        answers = asyncio.run(work(engine))
        stats = engine.stats()
    assert list(map(comparable, answers)) == expected
    assert sum(prefills) == len(asked) or blocks < 100, "none is sent back where there is room for all"
    with_image = sum(request.image is not None for request in asked)
    assert stats.images_encoded + stats.image_hits >= with_image, "of each image it is known where it came from"


def test_requests_that_are_cancelled_change_no_answer_and_leak_nothing(loaded: LoadedModel) -> None:
    asked, leaving = mixed(32, seed=5), mixed(60, seed=2)
    expected, rng = alone(loaded, asked), random.Random(3)

    async def leave(engine: Engine, request: Request) -> None:
        """Read a chunk or none, or be cancelled while waiting for one."""
        await asyncio.sleep(rng.random() / 5)
        chunks = cast("AsyncGenerator[Chunk, None]", engine.generate(request))
        try:
            async with asyncio.timeout(rng.random() / 20):
                await anext(chunks)
        except TimeoutError:
            pass
        finally:
            await chunks.aclose()

    async def work(engine: Engine) -> list[Completion]:
        gone = [asyncio.create_task(leave(engine, request)) for request in leaving]
        answers = await together(engine, asked)
        await asyncio.gather(*gone)
        await assert_empty(engine)
        return answers

    with Engine(loaded, config(loaded, blocks=60)) as engine:
        answers = asyncio.run(work(engine))
    assert list(map(comparable, answers)) == expected


def test_streamed_deltas_joined_are_the_answer_and_its_reasoning(loaded: LoadedModel) -> None:
    async def stream(engine: Engine, request: Request) -> tuple[Completion, Completion]:
        chunks = [chunk async for chunk in engine.generate(request)]
        joined = Chunk.joined(chunks)
        assert joined.completion is not None
        assert joined.text == joined.completion.text
        assert joined.reasoning == (joined.completion.grounding.reasoning or "")
        assert joined.token_ids == joined.completion.token_ids
        return joined.completion, await engine.complete(request)

    async def all_of(engine: Engine) -> list[tuple[Completion, Completion]]:
        return await asyncio.gather(*(stream(engine, request) for request in mixed(32, seed=4)))

    with Engine(loaded, config(loaded)) as engine:
        answers = asyncio.run(all_of(engine))
    assert all(comparable(streamed) == comparable(whole) for streamed, whole in answers)
    assert any(streamed.grounding.reasoning for streamed, _ in answers)


# Images


def kinds() -> dict[str, bytes]:
    plain = Image.open(BytesIO(scene(3)))
    palette = plain.quantize(8)
    palette.info["transparency"] = bytes(range(8))
    return {
        "one pixel": png(Image.new("RGB", (1, 1))),
        "a line": png(Image.new("RGB", (500, 1))),
        "a column": png(Image.new("L", (1, 3000), 200)),
        "8000x600": png(Image.new("RGB", (8000, 600), (9, 90, 200))),
        "16384x600": png(Image.new("1", (16_384, 600), 1)),
        "grey": png(plain.convert("L")),
        "grey with alpha": png(plain.convert("LA")),
        "alpha": png(plain.convert("RGBA")),
        "16 bits": png(Image.new("I;16", (70, 40), 40_000)),
        "palette": png(plain.quantize(16)),
        "palette with alpha": png(palette),
        "1 bit": png(plain.convert("1")),
        "CMYK": encoded(plain.convert("CMYK"), "JPEG"),
    }


def test_images_of_every_kind_are_answered(loaded: LoadedModel) -> None:
    images = kinds()
    asked = [
        Request(image, task=task, sampling=Sampling(max_tokens=6))
        for image in images.values()
        for task in (Task("caption"), Task("detect", ("dog",), max_objects=2))
    ]
    with Engine(loaded, config(loaded)) as engine:
        answers = asyncio.run(together(engine, asked))
        assert engine.stats().images_encoded == len(images)
    with_size = {name: answer.grounding.image_size for name, answer in zip(images, answers[::2], strict=True)}
    assert (with_size["one pixel"], with_size["8000x600"], with_size["16384x600"]) == (
        (1, 1),
        (8000, 600),
        (16384, 600),
    )
    assert {answer.usage.image_tokens for answer in answers} == {loaded.model.cache.prefix_positions}


@pytest.mark.parametrize(
    ("image", "code"),
    [
        (png(Image.new("1", (100_000, 600))), "image_too_large"),
        (b"", "empty_image_file"),
        (b"no image", "invalid_image_format"),
        (scene(5)[:-200], "image_parse_error"),
    ],
    ids=["too large", "empty", "none", "cut short"],
)
def test_what_is_not_an_image_is_refused_and_the_next_one_answered(
    loaded: LoadedModel, image: bytes, code: str
) -> None:
    async def work(engine: Engine) -> None:
        with pytest.raises(InvalidImage) as caught:
            await engine.complete(Request(image))
        assert caught.value.code == code
        assert (await engine.complete(Request(scene(5), sampling=Sampling(max_tokens=2)))).token_ids
        await assert_empty(engine)

    with Engine(loaded, config(loaded)) as engine:
        asyncio.run(work(engine))
