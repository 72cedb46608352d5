"""What ``import vlm`` offers, and what it does not load."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import vlm
from vlm.engine.engine import Engine
from vlm.loading import load

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("name", vlm.__all__)
def test_every_exported_name_is_there(name: str) -> None:
    assert getattr(vlm, name).__name__ == name
    assert name in dir(vlm)


def test_exported_names_are_those_of_their_modules() -> None:
    assert (vlm.Engine, vlm.load) == (Engine, load)


def test_another_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'vlm' has no attribute 'Lane'"):
        vlm.Lane  # noqa: B018  the access is what is tested


def test_importing_the_package_loads_neither_torch_nor_ray() -> None:
    code = (
        "import sys; from vlm import Box, Request, Task, VlmError; "
        "assert not {'torch', 'ray', 'numpy', 'PIL'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)
