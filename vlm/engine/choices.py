"""Several answers to one request: each choice is a generation of its own, with random numbers of its own.

All of them have the same image, so the engine encodes it once. Pure asyncio: the engine is whatever generates one.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from dataclasses import replace

from vlm.engine.merging import longest
from vlm.types import Chunk, Completion, Request, Usage

GenerateOne = Callable[[Request], AsyncGenerator[Chunk, None]]


def split(request: Request) -> tuple[Request, ...]:
    """One request for each choice."""
    seed = request.sampling.seed
    seeds = [None if seed is None else seed_of(seed, index) for index in range(request.n)]
    return tuple(replace(request, n=1, sampling=replace(request.sampling, seed=one)) for one in seeds)


def seed_of(seed: int, index: int) -> int:
    """The seed of one choice.

    The first has the request's own, so it is what a request for one answer gets, however many others there are. The
    others are hashes, so that they do not coincide with the choices of the next seed.
    """
    if index == 0:
        return seed
    return int.from_bytes(hashlib.sha256(f"{seed}/{index}".encode()).digest()[:8], signed=True)


async def generate(request: Request, generate_one: GenerateOne) -> AsyncGenerator[Chunk, None]:
    """The chunks of all choices as they come, each in ``Chunk.choices``; the last one carries the completion.

    Args:
        request: Asks for several choices; without ``stream``, all of them come in the last chunk.
        generate_one: Generates one; it is closed if another one fails.

    Raises:
        VlmError: The first failure.
    """
    found: asyncio.Queue[Chunk | asyncio.Task[Completion]] = asyncio.Queue()

    async def read(index: int, one: Request) -> Completion:
        completion = None
        async with aclosing(generate_one(one)) as chunks:
            async for chunk in chunks:
                completion = chunk.completion
                found.put_nowait(Chunk(choices=(replace(chunk, index=index, completion=None),)))
        assert completion is not None, "the last chunk carries the completion"
        return completion

    tasks = [asyncio.create_task(read(index, one)) for index, one in enumerate(split(request))]
    for task in tasks:
        task.add_done_callback(found.put_nowait)
    try:
        held, running = [], len(tasks)
        while running:
            new = await found.get()
            if not isinstance(new, Chunk):
                new.result()  # raises what has ended it
                running -= 1
            elif request.stream:
                yield new
            else:
                held.append(new)
        yield replace(Chunk.joined([*held, Chunk()]), completion=merge([task.result() for task in tasks]))
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def merge(answers: Sequence[Completion]) -> Completion:
    """The first answer with all of them as its ``choices``; the prompt counts once, and the tokens of all are added."""
    usages, first = [one.usage for one in answers], answers[0]
    usage = Usage(
        first.usage.image_tokens,
        first.usage.text_tokens,
        completion_tokens=sum(one.completion_tokens for one in usages),
        cached_tokens=min(one.cached_tokens for one in usages),
        reasoning_tokens=sum(one.reasoning_tokens for one in usages),
    )
    return replace(first, usage=usage, timings=longest([one.timings for one in answers]), choices=tuple(answers))
