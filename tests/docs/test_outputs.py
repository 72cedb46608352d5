"""What the pages show is what one gets: their commands are run, and each output is compared with the one shown."""

from __future__ import annotations

import ast
import json
import re
import shutil
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from subprocess import CalledProcessError
from unittest.mock import Mock, call

import numpy as np
import pytest
from PIL import Image

from docs.generate import refresh
from docs.generate.outputs import PAGES, ROOT, Example, find_examples, read_page, replace_outputs, run, serving

EXAMPLES = {page: find_examples(read_page(page)) for page in PAGES}
README = read_page("README.md")
IN_README = EXAMPLES["README.md"]


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with serving() as url:
        yield url


def named(page: str, example: Example) -> object:
    return pytest.param(example, id=f"{page}: {example.command.split(chr(10))[0][:60]}")


@pytest.mark.parametrize("example", [named(page, one) for page in PAGES for one in EXAMPLES[page]])
def test_a_command_prints_what_is_shown(example: Example, address: str) -> None:
    if example.command.startswith("curl") and not shutil.which("curl"):
        pytest.skip("needs curl")
    output = run(example, address)
    if not example.matches(output):
        assert output == example.output, "`.venv/bin/python docs/generate/refresh.py` makes it again"


def test_the_readme_shows_a_request_the_sdk_the_library_and_the_shell() -> None:
    begins = [f"{one.kind} {one.command.split()[0]}" for one in IN_README]
    assert begins == ["sh curl", "python import", "python from", "sh .venv/bin/python"]


def test_the_readmes_request_takes_a_photo_of_any_size(address: str, tmp_path: Path) -> None:
    """A shell passes arguments of at most 128 KiB, so that a body with a photo has to come by stdin."""
    if not shutil.which("curl"):
        pytest.skip("needs curl")
    photo = tmp_path / "photo.png"
    noise = np.random.default_rng(0).integers(0, 256, (600, 800, 3), dtype=np.uint8)
    Image.fromarray(noise).save(photo)
    assert photo.stat().st_size > 1_000_000
    request = IN_README[0]
    printed = run(
        replace(request, command=request.command.replace("examples/circle-and-square.png", str(photo))), address
    )
    assert printed.startswith('{"objects":')


def test_the_readmes_request_prints_an_error_whole(address: str) -> None:
    if not shutil.which("curl"):
        pytest.skip("needs curl")
    command = IN_README[0].command.replace('"detect"', '"detekt"')
    printed = run(replace(IN_README[0], command=command), address)
    assert "has no task 'detekt'" in json.loads(printed)["error"]["message"]


@pytest.mark.parametrize("command", ["false\n", "false | cat\n"])
def test_a_command_that_fails_is_an_error_even_before_a_pipe(command: str) -> None:
    with pytest.raises(CalledProcessError):
        run(Example("sh", command, "", 0, 0), "http://127.0.0.1:1")


@pytest.mark.parametrize("page", [*sorted(ROOT.glob("docs/**/*.md")), ROOT / "README.md"], ids=lambda page: page.name)
def test_commands_use_the_environment_that_make_installs(page: Path) -> None:
    """The system's Python lacks what the commands need, unless they need its standard library alone."""
    blocks = re.findall(r"^```sh\n(.*?)^```", page.read_text("utf-8"), re.MULTILINE | re.DOTALL)
    lines = [line.strip() for block in blocks for line in block.splitlines()]
    assert not [line for line in lines if re.match(r"(python|pytest|mypy|ruff|hf) |python3 (?!-c|-m json)", line)]


def test_the_readme_begins_with_an_answer_and_is_short() -> None:
    lines = README.splitlines()
    assert len(lines) <= 150
    assert README[: IN_README[0].start].count("\n") <= 24


@pytest.mark.parametrize("script", sorted((ROOT / "examples").glob("*.py")), ids=lambda script: script.name)
def test_every_example_is_short_and_shown_with_its_output(script: Path) -> None:
    assert f".venv/bin/python examples/{script.name}\n" in [one.command for one in EXAMPLES["examples/README.md"]]
    text = script.read_text("utf-8")
    assert 15 <= len(text.splitlines()) <= 40
    assert ast.get_docstring(ast.parse(text))


@pytest.mark.parametrize("page", PAGES)
def test_every_page_has_commands_with_outputs(page: str) -> None:
    assert EXAMPLES[page]


def test_an_old_output_is_replaced_and_nothing_else() -> None:
    made_up = [f"{index}\n" for index in range(len(IN_README))]
    again = find_examples(replace_outputs(README, IN_README, made_up))
    assert [one.output for one in again] == made_up
    assert [one.command for one in again] == [one.command for one in IN_README]
    assert (
        replace_outputs(replace_outputs(README, IN_README, made_up), again, [one.output for one in IN_README]) == README
    )


VARYING = """\
{"id":"chatcmpl-00112233445566778899aabbccddeeff","created":1700000000,"usage":{"cached_tokens":0},\
"x_gigarouter":{"request_id":"req_00112233445566778899aabbccddeeff","image_cache":"miss","timings":{"queue_ms":0.5}}}
14 tokens at 252 a second
"""


def test_what_varies_from_run_to_run_is_no_change() -> None:
    example = Example("sh", "", VARYING, 0, len(VARYING))
    other = VARYING
    for old, new in (
        ("0011", "aabb"),
        (":17", ":18"),
        ('_tokens":0', '_tokens":577'),
        ("miss", "hit"),
        ("0.5", "12"),
        ("252", "9"),
    ):
        other = other.replace(old, new)
        assert example.matches(other), new
    assert not example.matches(VARYING.replace("14 tokens", "15 tokens"))


@pytest.mark.parametrize(("factor", "matches"), [(1.001, True), (1.01, False)])
def test_a_score_may_be_rounded_otherwise(factor: float, matches: bool) -> None:
    scored = next(one for one in IN_README if '"score":' in one.output)
    printed = re.sub(r'(?<="score":)[.\d]+', lambda score: f"{float(score[0]) * factor:.4g}", scored.output)
    assert printed != scored.output
    assert scored.matches(printed) is matches


def test_refresh_checks_one_page_without_writing_it(address: str, capsys: pytest.CaptureFixture[str]) -> None:
    before = read_page("examples/README.md")
    assert refresh.refresh("examples/README.md", address, write=False) == 0
    assert read_page("examples/README.md") == before
    assert capsys.readouterr().out.startswith("examples/README.md: 0 of ")


def test_refresh_explains_itself_without_running_anything(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        refresh.main(["--help"])
    assert caught.value.code == 0
    assert "--check" in capsys.readouterr().out


@pytest.mark.parametrize("target", ["serve", "check", "test", "bench"])
def test_make_knows_what_the_readme_names(target: str) -> None:
    assert f"make {target}" in README
    assert f"\n{target}: " in (ROOT / "Makefile").read_text("utf-8")


@pytest.mark.parametrize("pages", [[], ["README.md"]])
@pytest.mark.parametrize("check", [False, True])
def test_what_refresh_does_with_outputs_that_are_out_of_date(
    check: bool, pages: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    refreshed, made = Mock(return_value=1), Mock()
    monkeypatch.setattr(refresh, "serving", lambda: nullcontext("http://server"))
    monkeypatch.setattr(refresh, "refresh", refreshed)
    monkeypatch.setattr("docs.generate.gallery.main", made)
    argv = [*pages, *(["--check"] if check else [])]
    assert refresh.main(argv) == int(check)
    assert refreshed.call_args_list == [call(page, "http://server", write=not check) for page in pages or PAGES]
    assert made.called is not (check or bool(pages))
    refreshed.return_value = 0
    assert refresh.main(argv) == 0
