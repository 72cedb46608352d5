"""The command ``gigarouter``, which ``python -m gigarouter`` starts too.

The exit status is that of the subcommand: 0 if all went well, 1 after a failure, 2 for bad input, and 130 after an
interrupt.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from importlib.metadata import version

from gigarouter.subcommands import SUBCOMMANDS, find
from router.suggest import did_you_mean

BAD_INPUT = 2
INTERRUPTED = 130
SHELLS = ("bash", "zsh", "tcsh")

_HELP = f"""\
usage: gigarouter SUBCOMMAND ...

One OpenAI-compatible endpoint for small vision-language models that see, read and point.

{{subcommands}}
  completion   print what makes a shell complete these commands: {", ".join(SHELLS)}

  gigarouter SUBCOMMAND --help     its options
  gigarouter --version             the version

The first answer, from two shells:

  gigarouter serve
  gigarouter ask photo.jpg --model florence-2-base --task detect
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a subcommand; returns its exit status."""
    given = [*(sys.argv[1:] if arguments is None else arguments)]
    if not given:
        print(help_text(), end="", file=sys.stderr)
        return BAD_INPUT
    name, *rest = given
    if name in ("-h", "--help", "help", "--version"):
        print(f"gigarouter {version('gigarouter')}" if name == "--version" else help_text().rstrip())
        return 0
    if name == "completion":
        return _complete(rest)
    subcommand = find(name)
    if subcommand is None:
        return _refuse(f"there is no subcommand {name!r}.{did_you_mean(name, [one.name for one in SUBCOMMANDS])}")
    try:
        return subcommand.load().main(rest, subcommand.program)
    except KeyboardInterrupt:
        return INTERRUPTED


def help_text() -> str:
    """What ``gigarouter --help`` prints."""
    return _HELP.format(subcommands="\n".join(f"  {one.name:<12} {one.summary}" for one in SUBCOMMANDS))


def everything() -> argparse.ArgumentParser:
    """One parser of all subcommands, from which completions are made."""
    whole = argparse.ArgumentParser(prog="gigarouter")
    whole.add_argument("--version", action="store_true", help="the version")
    subparsers = whole.add_subparsers()
    for one in SUBCOMMANDS:
        own = one.load().parser(one.program)
        subparsers.add_parser(one.name, help=one.summary, parents=[own], add_help=False, conflict_handler="resolve")
    subparsers.add_parser("completion", help="print a shell's completion").add_argument("shell", choices=SHELLS)
    return whole


def _complete(arguments: Sequence[str]) -> int:
    if len(arguments) != 1 or arguments[0] not in SHELLS:
        return _refuse(f"name one shell: {', '.join(SHELLS)}")
    import shtab

    print(shtab.complete(everything(), arguments[0]))
    return 0


def _refuse(message: str) -> int:
    print(f"error: {message}\nrun gigarouter --help for what there is", file=sys.stderr)
    return BAD_INPUT


def run() -> None:
    """What the command starts."""
    try:
        status = main()
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # else Python prints an error as it exits
        status = 1
    sys.exit(status)


if __name__ == "__main__":
    run()
