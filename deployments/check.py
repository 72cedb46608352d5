"""``python -m deployments.check serve_config.yaml``: what would go wrong with a Serve config, before it is deployed.

Ray drops unknown keys silently, and finds most other mistakes when a version is already being rolled out. This names
all of them at once, each with its place and a remedy, without a cluster and without loading a model. The exit code is
0 where nothing was found but warnings, 1 where something was, and 2 where the file cannot be read.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from deployments.check_accounts import keys_problems
from deployments.check_applications import own_problems
from deployments.check_problem import Problem
from deployments.local import serve_config
from vlm.errors import ConfigError

Json = Mapping[str, Any]


def check(config: Json, *, folders: bool = True) -> list[Problem]:
    """Everything that would go wrong with ``config``.

    Args:
        config: The content of a Serve config.
        folders: Whether the checkpoints' folders are to be on this machine, and are looked at.
    """
    from deployments.check_schema import schema_problems  # imports Ray, which reads its variables at that moment

    return [*schema_problems(config), *own_problems(config, folders=folders), *keys_problems(config)]


def checked(path: Path, *, folders: bool = True) -> dict[str, Any]:
    """The content of a Serve config in which nothing was found but warnings.

    Raises:
        ConfigError: It cannot be read, or something would go wrong; the message has a line on each.
    """
    return serve_config.without_problems(path, lambda config: check(config, folders=folders))


PROGRAM = "python -m deployments.check"


def parser(program: str = PROGRAM) -> argparse.ArgumentParser:
    """What reads the arguments of a program of this name."""
    parser = argparse.ArgumentParser(prog=program, description="Check a Serve config before it is deployed.")
    parser.add_argument("config", type=Path, help="the Serve config")
    parser.add_argument(
        "--no-folders", action="store_true", help="do not look for the checkpoints' folders on this machine"
    )
    return parser


def main(argv: Sequence[str] | None = None, program: str = PROGRAM) -> Literal[0, 1, 2]:
    """Print every problem; see the module for the exit code."""
    options = parser(program).parse_args(argv)
    try:
        config = serve_config.parse(options.config)
    except ConfigError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return _printed(options.config, check(config, folders=not options.no_folders), print)


def _printed(path: Path, problems: Sequence[Problem], print_line: Callable[[str], None]) -> Literal[0, 1]:
    lines = [f"{path}: {problem}" for problem in problems]
    for line in lines or [f"{path}: nothing was found that would go wrong"]:
        print_line(line)
    return 0 if all(one.is_warning for one in problems) else 1


if __name__ == "__main__":
    sys.exit(main())
