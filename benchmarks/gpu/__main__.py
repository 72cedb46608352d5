"""python -m benchmarks.gpu: the engine on this machine's GPU, in about eight minutes, as JSON lines on stdout.

    python -m benchmarks.gpu > gpu.jsonl                  everything
    python -m benchmarks.gpu --families blip kosmos2      some families
    python -m benchmarks.gpu --dry-run                    the same code on the CPU with tiny models, in half a minute

It measures the device's ceilings; per family how many answers of the miniature agree with float32 on the CPU; and at
the published size, with weights made up on the device, a decode step, the vision encoder, the whole engine, and
transformers' own classes. Each family runs in processes of its own with a time limit, so that one that fails costs only
its own rows. It needs torch, transformers and Pillow, and neither Ray nor a server.
"""

from __future__ import annotations

import argparse
import platform
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import torch

from benchmarks.gpu import agreement, ceilings, steps, throughput
from benchmarks.gpu.models import FOLDERS, synthesised
from benchmarks.gpu.records import DRY, FULL, log, write

ROOT = Path(__file__).resolve().parents[2]
CEILINGS = "ceilings"
PARTS = ("agreement", "steps", "engine", "transformers")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run all jobs, each in a process of its own; returns 1 if some have failed."""
    options = _parser().parse_args(arguments)
    if options.job:
        run_job(options.job, options)
        return 0
    if not options.dry_run and not torch.cuda.is_available():
        print("error: there is no CUDA device here; --dry-run goes through it on the CPU.", file=sys.stderr)
        return 2
    end = time.monotonic() + options.minutes * 60
    write("machine", **machine(options.dry_run))
    jobs = [CEILINGS, *(f"{part}:{family}" for part in PARTS for family in options.families)]
    failed = [job for job in jobs if not _run_in_child(job, options, end)]
    log(f"failed: {', '.join(failed)}" if failed else "all jobs have ended well")
    return 1 if failed else 0


def machine(dry_run: bool) -> dict[str, object]:
    """What the numbers were measured on."""
    import transformers

    return {
        "date": time.strftime("%Y-%m-%d"), "device": "CPU" if dry_run else torch.cuda.get_device_name(),
        "python": platform.python_version(), "torch": torch.__version__, "cuda": torch.version.cuda,
        "transformers": transformers.__version__,
    }  # fmt: skip


def run_job(job: str, options: argparse.Namespace) -> None:
    """Measure one part, in this process: ``"ceilings"`` or ``"steps:blip"``."""
    scale, device = (DRY, torch.device("cpu")) if options.dry_run else (FULL, torch.device("cuda", 0))
    # Answers in float32 are compared with those of the CPU, which computes in float32 throughout.
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    part, _, family = job.partition(":")
    dtype = getattr(torch, options.dtype)
    match part:
        case "ceilings":
            ceilings.measure(device, scale)
        case "agreement":
            agreement.measure(family, device, scale)
        case "steps":
            loaded = synthesised(family, scale.size, dtype, device)
            steps.measure_vision(loaded, scale)
            steps.measure_decode(loaded, scale, options.traces)
        case "engine":
            throughput.measure_engine(synthesised(family, scale.size, dtype, device), scale)
        case "transformers":
            throughput.measure_reference(family, dtype, device, scale)
        case _:
            raise ValueError(f"there is no job {job!r}")


def _run_in_child(job: str, options: argparse.Namespace, end: float) -> bool:
    """Run a job in a child process, whose rows come out as it writes them; False if it failed or took too long."""
    limit = min(options.job_seconds, end - time.monotonic())
    if limit < 1:
        write("failure", job=job, why="no time was left")
        return False
    log(f"{job} ...")
    command = [sys.executable, "-m", "benchmarks.gpu", "--job", job, "--dtype", options.dtype]
    command += ["--dry-run"] if options.dry_run else []
    command += ["--traces", str(options.traces)] if options.traces else []
    try:
        status = subprocess.run(command, cwd=ROOT, timeout=limit, check=False).returncode  # noqa: S603  our own module
        why = f"its exit status was {status}; see stderr"
    except subprocess.TimeoutExpired:
        status, why = 1, f"it took longer than {limit:.0f} s"
    if status:
        write("failure", job=job, why=why)
    return status == 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.gpu", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--families", nargs="+", choices=sorted(FOLDERS), default=sorted(FOLDERS))
    parser.add_argument("--dtype", choices=("bfloat16", "float16", "float32"), default="bfloat16")
    parser.add_argument("--dry-run", action="store_true", help="tiny models on the CPU: does every part run?")
    parser.add_argument("--minutes", type=float, default=8, help="end after so many (default 8)")
    parser.add_argument("--job-seconds", type=float, default=90, help="time limit of one job (default 90)")
    parser.add_argument("--traces", type=Path, help="folder for a profiler trace of each family's decode step")
    parser.add_argument("--job", help=argparse.SUPPRESS)
    return parser


if __name__ == "__main__":
    sys.exit(main())
