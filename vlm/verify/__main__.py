"""python -m vlm.verify CHECKPOINT: checks that it is complete, is what its config.json says, and runs.

    python -m vlm.verify miniatures/blip-large
    python -m vlm.verify organisation/name --revision <full commit id> --device cuda --compare

Prints one line for each check on stdout (ok, note, FAILED or skipped), and progress on stderr. A note is a fault that
does not matter to serving. The exit status is 0 if nothing failed, 1 if something did, and 2 for a command line that
cannot be read.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from pathlib import Path
from typing import get_args

from vlm.checkpoint.files import Checkpoint
from vlm.errors import VlmError
from vlm.loading import find_family, open_checkpoint
from vlm.models.cards import cards_of
from vlm.models.checks import Finding, State
from vlm.models.family import Family
from vlm.verify.published_files import check_files
from vlm.verify.run import RunOptions, check_run
from vlm.verify.settings import check_config, check_processor, check_tokenizer
from vlm.verify.tensors import check_tensors
from vlm.verify.token_ids import check_token_ids

Check = Callable[[], Iterable[Finding]]


PROGRAM = "python -m vlm.verify"


def main(arguments: Sequence[str] | None = None, program: str = PROGRAM) -> int:
    """Print every finding, then the verdict; returns the exit status."""
    options = parser(program).parse_args(arguments)
    run = None if options.no_run else RunOptions(options.device, options.dtype, options.compare)
    found = []
    for finding in verify(options.checkpoint, options.revision, run):
        print(f"{finding.state:8} {finding.check:15} {finding.detail}", flush=True)
        found.append(finding.state)
    print(_verdict(found))
    return 1 if "FAILED" in found else 0


def parser(program: str = PROGRAM) -> argparse.ArgumentParser:
    """What reads the arguments of a program of this name."""
    description = "Check that a checkpoint is complete, is what its config.json says, and runs."
    parser = argparse.ArgumentParser(prog=program, description=description)
    parser.add_argument("checkpoint", help="folder of a checkpoint, or its id on the Hugging Face hub")
    parser.add_argument(
        "--revision", help="full commit id on the hub; of a folder, the revision to compare its files with"
    )
    parser.add_argument("--device", default="cpu", help="where to run it (default: cpu)")
    parser.add_argument("--dtype", choices=("float32", "bfloat16", "float16"), help="default: the widest that fits")
    parser.add_argument("--no-run", action="store_true", help="check the files only")
    parser.add_argument("--compare", action="store_true", help="compare an answer with transformers' own generate")
    return parser


def verify(source: str, revision: str | None, run: RunOptions | None) -> Iterator[Finding]:
    """Every finding, in the order of the checks; a check whose precondition failed is skipped."""
    try:
        checkpoint = open_checkpoint(source, None if Path(source).is_dir() else revision, _tell)
    except VlmError as error:
        yield Finding("folder", "FAILED", str(error))
        return
    yield Finding("folder", "ok", str(checkpoint.folder))
    try:
        name, family = find_family(checkpoint)
    except VlmError as error:
        yield from _guarded("files", lambda: check_files(checkpoint, (), revision))
        yield Finding("model type", "FAILED", str(error))
        yield Finding("the rest", "skipped", "it depends on the kind of model")
        return
    failed = yield from _all(_checks(checkpoint, revision, name, family))
    if failed or run is None:
        yield Finding("run", "skipped", "correct what failed first" if failed else "--no-run was given")
    else:
        yield from _guarded("run", lambda: check_run(checkpoint, family, run))


def _checks(checkpoint: Checkpoint, revision: str | None, name: str, family: Family) -> tuple[tuple[str, Check], ...]:
    """The checks that need no running model, each with the name under which an exception is reported."""
    releases = tuple(release for card in cards_of(name) for release in card.releases)
    return (
        ("files", lambda: check_files(checkpoint, releases, revision)),
        ("config", lambda: check_config(checkpoint, name, family)),
        ("processor", lambda: check_processor(checkpoint, name, family)),
        ("tensors", lambda: check_tensors(checkpoint, family)),
        ("tokenizer", lambda: check_tokenizer(checkpoint, name, family)),
        ("token ids", lambda: check_token_ids(checkpoint, family.empty(checkpoint.config).vocabulary)),
    )


def _all(checks: Iterable[tuple[str, Check]]) -> Generator[Finding, None, bool]:
    """The findings of all checks, each failure only once; returns whether anything failed."""
    failures: set[str] = set()
    for check, work in checks:
        for finding in _guarded(check, work):
            known = finding.detail in failures
            yield Finding(finding.check, "skipped", "for the same reason") if known else finding
            failures |= {finding.detail} if finding.state == "FAILED" else set()
    return bool(failures)


def _guarded(check: str, work: Check) -> Iterator[Finding]:
    """The findings of one check; an unforeseen exception becomes a finding too, so that the other checks still run."""
    try:
        yield from work()
    except VlmError as error:
        yield Finding(check, "FAILED", str(error))
    except Exception as error:  # noqa: BLE001  so that the other checks still run
        yield Finding(check, "FAILED", f"{type(error).__name__}: {error} (unforeseen: please report it)")


def _verdict(found: Sequence[str]) -> str:
    counted = ", ".join(f"{found.count(state)} {state}" for state in get_args(State) if state in found)
    return f"{'do not serve this' if 'FAILED' in found else 'nothing failed'}: {counted}"


def _tell(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
