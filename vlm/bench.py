"""python -m vlm.bench: measure the engine, without Ray, beside transformers' ``generate`` on the same weights.

    python -m vlm.bench miniatures/blip-large
    python -m vlm.bench --config real                  synthetic weights of the published size, every family
    python -m vlm.bench florence2 --config tiny --concurrency 1,8 --requests 32
    python -m vlm.bench miniatures/florence-2-base --beams 3
    python -m vlm.bench moondream2 --config tiny --size 1024x768 --one-image

Every request has an image of its own, unless ``--one-image`` is given. Rates are requests per second and depend on the
machine. The ratio to ``generate``, which answers one request at a time, is what can be compared between machines. The
answers of both are also compared token for token, and in float32 all of them must be equal.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import median

import torch

from vlm.checkpoint.files import Checkpoint
from vlm.engine.config import EngineConfig
from vlm.engine.engine import Engine
from vlm.errors import CheckpointError, VlmError
from vlm.image.sample import sample_image
from vlm.loading import families, load, synthesize
from vlm.models.base import LoadedModel
from vlm.reference import native_prompt, reference
from vlm.types import Completion, Request, Sampling


@dataclass(frozen=True, slots=True)
class Measured:
    """One way of answering all requests.

    Attributes:
        name: "transformers" or "engine c=N".
        requests_per_s, tokens_per_s: Over the whole run.
        first_ms, total_ms: Medians of the time to a request's first token and to its end; None where not measured.
        ratio: Its requests per second divided by those of transformers; None without transformers.
        equal: "N/M": N of the M answers have the reference's token ids; None where they are not compared.
    """

    name: str
    requests_per_s: float
    tokens_per_s: float
    first_ms: float | None = None
    total_ms: float | None = None
    ratio: float | None = None
    equal: str | None = None


@dataclass(frozen=True, slots=True)
class Plan:
    """What is measured.

    Attributes:
        prompt: The prompt of every request.
        requests: Number of requests.
        tokens: Maximum number of tokens of an answer.
        concurrency: Numbers of concurrent requests, each measured in a run of its own.
        reference: Whether transformers is measured too.
        beams: Number of beams; 1 is greedy.
        size: (width, height) of every image.
        one_image: Whether all requests are about the same image.
    """

    prompt: str
    requests: int
    tokens: int
    concurrency: tuple[int, ...]
    reference: bool
    beams: int = 1
    size: tuple[int, int] = (640, 480)
    one_image: bool = False


PROGRAM = "python -m vlm.bench"


def main(arguments: Sequence[str] | None = None, program: str = PROGRAM) -> int:
    """Run the benchmark and print its table (or ``--json``)."""
    options = parser(program).parse_args(arguments)
    if options.threads:
        torch.set_num_threads(options.threads)
    try:
        for name in _names(options):
            with _checkpoint(name, options.config) as checkpoint:
                loaded = load(checkpoint, dtype=options.dtype, device=options.device)
                _print(measure(loaded, checkpoint, _plan(options)), loaded, options.json)
    except VlmError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def parser(program: str = PROGRAM) -> argparse.ArgumentParser:
    """What reads the arguments of a program of this name."""
    parser = argparse.ArgumentParser(prog=program, description="Measure the engine beside transformers' `generate`.")
    parser.add_argument(
        "checkpoint", nargs="?", help="a checkpoint folder; with --config the name of a family (default: all)"
    )
    parser.add_argument("--config", choices=("tiny", "real"), help="synthesise weights of this size")
    parser.add_argument("--prompt", default="", help="as a client would send it (default: the model's own default)")
    parser.add_argument("--requests", type=int, default=32)
    parser.add_argument("--tokens", type=int, default=20, help="maximum number of tokens of an answer")
    parser.add_argument("--concurrency", type=_levels, default=(1, 8, 32), help="comma-separated (default 1,8,32)")
    parser.add_argument("--beams", type=int, default=1, help="number of beams (default 1: greedy)")
    parser.add_argument("--size", type=_size, default=(640, 480), help="size of each image (default 640x480)")
    parser.add_argument("--one-image", action="store_true", help="ask about one image, which is encoded already")
    parser.add_argument("--dtype", default="auto", choices=("auto", "float32", "bfloat16", "float16"))
    parser.add_argument("--device", default="auto")
    parser.add_argument("--threads", type=int, default=0, help="torch threads on CPU (default: torch's own choice)")
    parser.add_argument("--no-reference", action="store_true", help="leave transformers out")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of a table")
    return parser


def _plan(options: argparse.Namespace) -> Plan:
    return Plan(
        options.prompt, options.requests, options.tokens, options.concurrency, not options.no_reference, options.beams,
        options.size, options.one_image,
    )  # fmt: skip


def _size(text: str) -> tuple[int, int]:
    width, height = text.split("x")
    if min(int(width), int(height)) < 1:
        raise ValueError(text)
    return int(width), int(height)


def _levels(text: str) -> tuple[int, ...]:
    levels = tuple(int(level) for level in text.split(","))
    if min(levels) < 1:
        raise ValueError(text)
    return levels


def _names(options: argparse.Namespace) -> tuple[str, ...]:
    """What to measure: one checkpoint or family, or all families."""
    if options.checkpoint is not None:
        return (options.checkpoint,)
    if options.config is None:
        raise CheckpointError("Name a checkpoint folder, or a size with --config.")
    return tuple(name for name, _ in families())


@contextmanager
def _checkpoint(name: str, size: str | None) -> Iterator[Checkpoint]:
    """The checkpoint to measure. Synthetic weights are deleted when the context ends."""
    if size is None:
        yield Checkpoint.open(Path(name), report=_note)
        return
    known = dict(families())
    if name not in known:
        raise CheckpointError(f"{name!r} is not a model family; with --config, name one of {', '.join(known)}.")
    with tempfile.TemporaryDirectory(prefix="vlm-bench-") as folder:
        _note(f"synthesising {size} weights of {name}")
        synthesize(known[name], Path(folder), known[name].sizes[size], 0)
        yield Checkpoint.open(folder, report=_note)


def measure(loaded: LoadedModel, checkpoint: Checkpoint, plan: Plan) -> list[Measured]:
    """Answer the plan's requests with the reference, then with the engine at each concurrency."""
    images = [sample_image(0 if plan.one_image else seed, *plan.size) for seed in range(plan.requests)]
    rows: list[Measured] = []
    expected: list[tuple[int, ...]] | None = None
    if plan.reference:
        _note("transformers, one at a time")
        try:
            theirs, expected = _run_reference(loaded, checkpoint, images, plan)
            rows.append(theirs)
        except (ImportError, ValueError) as error:
            _note(f"left out: {error}")
    for level in plan.concurrency:
        _note(f"engine, {level} at a time")
        row = asyncio.run(_run_engine(loaded, images, plan, level))
        rows.append(_compared(*row, rows[0], expected) if expected is not None else row[0])
    return rows


async def _run_engine(
    loaded: LoadedModel, images: Sequence[bytes], plan: Plan, level: int
) -> tuple[Measured, list[Completion]]:
    """Measure a new engine. Its warm-up leaves nothing of the images in its caches, except with ``one_image``."""
    with Engine(loaded, EngineConfig(max_batch=max(plan.concurrency))) as engine:
        unseen = sample_image(plan.requests, *plan.size)  # a seed that no request has
        await _answer(engine, images[:1] if plan.one_image else [unseen], plan, 1)  # warm up
        began = time.perf_counter()
        answers = await _answer(engine, images, plan, level)
        seconds = time.perf_counter() - began
    measured = Measured(
        name=f"engine c={level}",
        requests_per_s=len(images) / seconds,
        tokens_per_s=sum(answer.usage.completion_tokens for answer in answers) / seconds,
        first_ms=median(answer.timings.first_token_ms for answer in answers),
        total_ms=median(answer.timings.total_ms for answer in answers),
    )
    return measured, answers


def _compared(
    row: Measured, answers: Sequence[Completion], reference: Measured, expected: Sequence[tuple[int, ...]]
) -> Measured:
    """The row with its ratio to the reference and the number of equal answers.

    In a shorter dtype than float32, rounding decides between tokens of nearly equal probability, both here and in the
    reference, so that a different answer need not be a worse one.
    """
    same = sum(answer.token_ids == ids for answer, ids in zip(answers, expected, strict=True))
    return replace(row, ratio=row.requests_per_s / reference.requests_per_s, equal=f"{same}/{len(answers)}")


async def _answer(engine: Engine, images: Sequence[bytes], plan: Plan, level: int) -> list[Completion]:
    """All answers in order, with at most ``level`` requests in the engine at once."""
    gate = asyncio.Semaphore(level)
    sampling = Sampling(max_tokens=plan.tokens, num_beams=plan.beams, early_stopping=plan.beams > 1, length_penalty=1.0)

    async def one(image: bytes) -> Completion:
        async with gate:
            return await engine.complete(Request(image, plan.prompt, sampling=sampling))

    return await asyncio.gather(*map(one, images))


def _run_reference(
    loaded: LoadedModel, checkpoint: Checkpoint, images: Sequence[bytes], plan: Plan
) -> tuple[Measured, list[tuple[int, ...]]]:
    """Measure transformers' own classes on one image after another, including the decoding and resizing of images."""
    model = loaded.model
    prompt = native_prompt(loaded.processor, images[0], plan.prompt)
    answer = reference(
        checkpoint, prompt=prompt, tokens=plan.tokens, beams=plan.beams, dtype=model.dtype, device=str(model.device)
    )
    answer(images[0])  # warm up
    began = time.perf_counter()
    times, ids = [], []
    for image in images:
        start = time.perf_counter()
        ids.append(answer(image))
        times.append(1000 * (time.perf_counter() - start))
    seconds = time.perf_counter() - began
    measured = Measured(
        name="transformers",
        requests_per_s=len(images) / seconds,
        tokens_per_s=sum(map(len, ids)) / seconds,
        total_ms=median(times),
        ratio=1.0,
    )
    return measured, ids


def _note(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _print(rows: Sequence[Measured], loaded: LoadedModel, as_json: bool) -> None:
    device = torch.cuda.get_device_name(loaded.model.device) if loaded.model.device.type == "cuda" else "CPU"
    setting = {
        "family": loaded.family, "source": loaded.source, "dtype": str(loaded.model.dtype), "device": device,
        "threads": torch.get_num_threads(), "torch": torch.__version__,
    }  # fmt: skip
    if as_json:
        print(json.dumps({**setting, "rows": [asdict(row) for row in rows]}))
        return
    print(" ".join(f"{key}={value}" for key, value in setting.items()))
    print(f"{'':14}{'req/s':>9}{'tok/s':>9}{'first ms':>10}{'total ms':>10}{'ratio':>8}{'equal':>9}")
    for row in rows:
        cells = (row.first_ms, row.total_ms)
        shown = "".join(f"{'-' if cell is None else f'{cell:.1f}':>10}" for cell in cells)
        ratio = "-" if row.ratio is None else f"{row.ratio:.2f}x"
        print(f"{row.name:14}{row.requests_per_s:9.2f}{row.tokens_per_s:9.1f}{shown}{ratio:>8}{row.equal or '-':>9}")


if __name__ == "__main__":
    sys.exit(main())
