"""Runs the commands of a page, each in a process of its own, all forked from one that has already imported torch.

Importing torch takes longer than most of the commands themselves. Nothing of the project is imported before the fork,
so every command finds the sources as the commands before it have left them. The blocks come as JSON on the standard
input; what each has printed goes as JSON to the standard output, or the output of the first that fails to the standard
error.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import runpy
import shlex
import subprocess
import sys
import tempfile
from typing import IO

import tokenizers  # noqa: F401  # only to have it in memory before the fork, as the next two
import torch
import torch._dynamo  # noqa: F401  # torch imports it when an embedding is made on the meta device

PYTHON = ".venv/bin/python -m "


def execute(language: str, text: str, output: IO[str]) -> None:
    """Do what a reader's shell or interpreter would do, in this process."""
    os.dup2(output.fileno(), 1)
    os.dup2(output.fileno(), 2)
    if language == "python":
        exec(compile(text, "<page>", "exec"), {"__name__": "__main__"})
    elif text.startswith(PYTHON) and len(text.splitlines()) == 1:
        module, *arguments = shlex.split(text.removeprefix(PYTHON))
        sys.argv = [module, *arguments]
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    else:
        assert ".venv/bin/python" not in text, f"a command in Python must be alone in its block:\n{text}"
        subprocess.run(["bash", "-ec", text], check=True)


def output_of(language: str, text: str) -> str:
    """What one block prints; if it fails, the program ends with that."""
    with tempfile.TemporaryFile("w+", encoding="utf-8") as output:
        process = multiprocessing.get_context("fork").Process(target=execute, args=(language, text, output))
        process.start()
        process.join()
        output.seek(0)
        printed = output.read()
    if process.exitcode != 0:
        sys.exit(f"exit code {process.exitcode} of\n{text}\n{printed}")
    return printed


if __name__ == "__main__":
    json.dump([output_of(language, text) for language, text in json.load(sys.stdin)], sys.stdout)
