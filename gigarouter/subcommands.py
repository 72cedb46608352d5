"""What ``gigarouter`` can do: a table of subcommands, each a module that is imported only when it is needed."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Protocol


class Program(Protocol):
    """A module that is a program: ``python -m`` starts it, and so does the subcommand."""

    main: Callable[[Sequence[str] | None, str], int]
    """Run with these arguments under this name; returns the exit status."""
    parser: Callable[[str], argparse.ArgumentParser]
    """What reads the arguments of a program of this name."""


@dataclass(frozen=True, slots=True)
class Subcommand:
    """One line of ``gigarouter --help``.

    Attributes:
        name: What is typed.
        module: The module with its ``main`` and ``parser``.
        summary: What it does.
    """

    name: str
    module: str
    summary: str

    @property
    def program(self) -> str:
        """Its name in its own help and messages."""
        return f"gigarouter {self.name}"

    def load(self) -> Program:
        """The module; only what is asked for is imported, since some take seconds."""
        module: Program = import_module(self.module)
        return module


SUBCOMMANDS = (
    Subcommand("serve", "deployments.local.__main__", "run the whole system on this machine, until Ctrl-C"),
    Subcommand("ask", "gigarouter.ask", "ask a running system about images"),
    Subcommand("status", "gigarouter.status", "print what a running system does at this moment"),
    Subcommand("accounts", "gigarouter.accounts", "manage accounts and their database"),
    Subcommand("keys", "gigarouter.keys", "make, show, change, replace and revoke API keys"),
    Subcommand("credits", "gigarouter.credits", "show and give the credits of accounts"),
    Subcommand("usage", "gigarouter.usage", "print what was used, and what it cost"),
    Subcommand("fetch", "gigarouter.fetch", "download a model's published files and compare their hashes"),
    Subcommand("verify", "vlm.verify.__main__", "check that a checkpoint is complete, and that it runs"),
    Subcommand("bench", "vlm.bench", "measure the engine on this machine, beside transformers"),
    Subcommand("check", "deployments.check", "check a Serve config before it is deployed"),
)
"""In the order of ``--help``."""


def find(name: str) -> Subcommand | None:
    """The subcommand of this name."""
    return next((one for one in SUBCOMMANDS if one.name == name), None)
