"""What the README shows is what one gets: its commands are run, and their output compared to the letter."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator

import pytest

from docs.generate.outputs import README, ROOT, Shown, printed, replaced, serving, shown

TEXT = README.read_text("utf-8")
SHOWN = shown(TEXT)


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with serving() as url:
        yield url


def test_there_is_something_to_check() -> None:
    begins = [f"{one.kind} {one.command.split()[0]}" for one in SHOWN]
    assert begins == ["sh curl", "python import", "sh curl", "sh curl", *["sh .venv/bin/python"] * 3]


@pytest.mark.parametrize("command", SHOWN, ids=lambda command: command.command.split("\n")[0][:60])
def test_a_command_prints_what_is_shown(command: Shown, address: str) -> None:
    if command.command.startswith("curl") and not shutil.which("curl"):
        pytest.skip("needs curl")
    output = printed(command, address)
    if not command.agrees(output):
        assert output == command.output, "`python docs/generate/refresh.py` makes it again"


def test_an_old_output_is_replaced_and_nothing_else() -> None:
    made_up = [f"{place}\n" for place in range(len(SHOWN))]
    again = shown(replaced(TEXT, SHOWN, made_up))
    assert [one.output for one in again] == made_up
    assert [one.command for one in again] == [one.command for one in SHOWN]
    assert replaced(replaced(TEXT, SHOWN, made_up), again, [one.output for one in SHOWN]) == TEXT


def test_another_speed_is_no_change() -> None:
    verified = next(place for place, one in enumerate(SHOWN) if "vlm.verify" in one.command)
    outputs = [one.output for one in SHOWN]
    outputs[verified] = outputs[verified].replace(" a second", "0 a second")
    assert replaced(TEXT, SHOWN, outputs) == TEXT


@pytest.mark.parametrize(("factor", "agrees"), [(1.001, True), (1.01, False)])
def test_a_score_may_be_rounded_otherwise(factor: float, agrees: bool) -> None:
    scored = next(one for one in SHOWN if '"score":' in one.output)
    printed = re.sub(r'(?<="score":)[.\d]+', lambda score: f"{float(score[0]) * factor:.4g}", scored.output)
    assert printed != scored.output
    assert scored.agrees(printed) is agrees


@pytest.mark.parametrize("target", ["serve", "check", "test", "bench"])
def test_make_knows_what_the_readme_names(target: str) -> None:
    assert f"make {target}" in TEXT
    assert f"\n{target}: " in (ROOT / "Makefile").read_text("utf-8")
