"""python -m benchmarks.gpu.fraction: engines within a fraction of this machine's GPU, as JSON lines on stdout.

    python -m benchmarks.gpu.fraction                   Florence-2-base and BLIP-large, published size, in a quarter
    python -m benchmarks.gpu.fraction --fraction 0.06   in another fraction

Each case runs in a process of its own: an engine under load within the fraction, within the least one that is not
refused, and one in half of that, which must be refused. It imports neither Ray nor a server.
"""

from __future__ import annotations

import argparse
import asyncio
import subprocess
import sys
from pathlib import Path

import torch

from benchmarks.gpu.models import FOLDERS, never_ending, synthesised
from benchmarks.gpu.records import log, write
from vlm.engine.config import EngineConfig
from vlm.engine.engine import Engine
from vlm.engine.gpu import share_of, taken, within
from vlm.engine.gpu_share import CONTEXT_BYTES, Needs, Share
from vlm.errors import ConfigError, VlmError
from vlm.image.sample import sample_image
from vlm.loading import families
from vlm.models.base import VisionLanguageModel
from vlm.types import Request, Sampling

ROOT = Path(__file__).resolve().parents[2]
DEVICE = torch.device("cuda")  # as a replica's config says it
DTYPE = torch.bfloat16
REQUESTS = 128
ROUNDS = 3
CASES = ("given", "least", "too small")
MAX_CASE_S = 120


def main(arguments: list[str] | None = None) -> int:
    """Run all cases; returns 1 if one has failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fraction", type=float, default=0.25)
    parser.add_argument("--families", nargs="+", choices=sorted(FOLDERS), default=["florence2", "blip"])
    parser.add_argument("--case", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if not torch.cuda.is_available():
        print("error: there is no CUDA device here.", file=sys.stderr)
        return 2
    if options.case:
        measure(options.case[0], options.case[1], options.fraction)
        return 0
    return max(_in_child(family, case, options.fraction) for family in options.families for case in CASES)


def measure(family: str, case: str, fraction: float) -> None:
    """Write what one case takes, or the words with which it is refused."""
    torch.zeros(1, device=DEVICE)  # CUDA's context
    config = EngineConfig(max_waiting=3 * REQUESTS, caller_share=100)  # one caller asks them all, with 3 beams, too
    model, parameters = _without_weights(family)
    needs = Needs.of(parameters * DTYPE.itemsize, model.cache, DTYPE.itemsize, config)
    card = share_of(DEVICE, 1.0).card
    least = (needs.total + CONTEXT_BYTES) / card + 1e-6
    share = Share(card, {"given": fraction, "least": least, "too small": least / 2}[case])
    try:
        within(DEVICE, share.fraction, config)(model, parameters, DTYPE)
    except ConfigError as error:
        write("refused", family=family, case=case, fraction=share.fraction, message=str(error))
        return
    loaded = never_ending(synthesised(family, "real", DTYPE, DEVICE))
    after_loading = _gib(torch.cuda.memory_allocated(DEVICE))
    with Engine(loaded, config) as engine:
        after_start = _gib(torch.cuda.memory_allocated(DEVICE))
        failed = sum(_failures(engine, beams) for _ in range(ROUNDS) for beams in (1, 3))
    measured = taken(DEVICE)
    assert measured is not None
    free, _ = torch.cuda.mem_get_info(DEVICE)
    write(
        "fraction", family=family, case=case, fraction=share.fraction, card_gib=_gib(card), share_gib=_gib(share.bytes),
        limit_gib=_gib(measured.limit), expected=str(needs), after_loading_gib=after_loading,
        after_start_gib=after_start, peak_allocated_gib=_gib(measured.peak_allocated),
        peak_reserved_gib=_gib(measured.peak_reserved), measured=str(measured),
        workspace_gib=_gib(measured.peak_reserved - needs.total + needs.workspace),
        context_gib=_gib(card - free - measured.reserved), requests=2 * ROUNDS * REQUESTS, failed=failed,
        beyond_the_limit=_beyond(measured.limit),
    )  # fmt: skip


def _without_weights(family: str) -> tuple[VisionLanguageModel, int]:
    """A model of the published size that takes no memory, and its number of parameters."""
    found = dict(families())[family]
    model = found.empty(found.sizes["real"])
    assert isinstance(model, torch.nn.Module)
    return model, sum(one.numel() for one in model.parameters())


def _failures(engine: Engine, beams: int) -> int:
    """How many of the requests fail, all of them at once and each with an image of its own."""
    sampling = Sampling(max_tokens=20, num_beams=beams, early_stopping=False, length_penalty=1.0, temperature=0)

    async def one(seed: int) -> bool:
        try:
            await engine.complete(Request(sample_image(seed), sampling=sampling, stream=False))
        except VlmError as error:
            log(f"failed: {error}")
            return True
        return False

    async def all_of_them() -> int:
        return sum(await asyncio.gather(*map(one, range(REQUESTS))))

    return asyncio.run(all_of_them())


def _beyond(limit_bytes: int) -> str:
    """What torch says to an allocation beyond the limit."""
    try:
        torch.empty(limit_bytes + 2**20, dtype=torch.uint8, device=DEVICE)
    except torch.OutOfMemoryError:
        return "refused"
    return "allowed"


def _in_child(family: str, case: str, fraction: float) -> int:
    command = [sys.executable, "-m", "benchmarks.gpu.fraction", "--case", family, case, "--fraction", str(fraction)]
    log(f"{family}, {case} ...")
    try:
        return subprocess.run(command, cwd=ROOT, timeout=MAX_CASE_S, check=False).returncode  # noqa: S603  our own
    except subprocess.TimeoutExpired:
        write("failure", family=family, case=case, why=f"it took longer than {MAX_CASE_S} s")
        return 1


def _gib(count: int) -> float:
    return count / 2**30


if __name__ == "__main__":
    sys.exit(main())
