"""The command ``gigarouter``: help, unknown names, exit statuses, and completion of all subcommands."""

from __future__ import annotations

import pytest

from gigarouter.__main__ import BAD_INPUT, everything, help_text, main
from gigarouter.subcommands import SUBCOMMANDS, Subcommand


def test_help_names_every_subcommand(capsys: pytest.CaptureFixture[str]) -> None:
    for word in ("--help", "-h", "help"):
        assert main([word]) == 0
    out = capsys.readouterr().out
    assert all(one.name in out and one.summary in out for one in SUBCOMMANDS)
    assert all(len(line) <= 100 for line in help_text().splitlines())


def test_without_a_subcommand_it_prints_its_help_and_fails(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == BAD_INPUT
    assert "usage: gigarouter" in capsys.readouterr().err


def test_an_unknown_subcommand_is_refused_with_the_one_that_was_probably_meant(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["sevre"]) == BAD_INPUT
    assert "'serve'" in capsys.readouterr().err


def test_the_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("gigarouter 0.")


@pytest.mark.parametrize("subcommand", SUBCOMMANDS, ids=lambda one: one.name)
def test_help_of_a_subcommand_is_under_its_own_name(subcommand: Subcommand, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main([subcommand.name, "--help"])
    assert ended.value.code == 0
    assert f"usage: gigarouter {subcommand.name}" in capsys.readouterr().out


@pytest.mark.parametrize("subcommand", SUBCOMMANDS, ids=lambda one: one.name)
def test_options_that_do_not_exist_are_bad_input(subcommand: Subcommand, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main([subcommand.name, "--no-such-option"])
    assert ended.value.code == BAD_INPUT
    assert "error: " in capsys.readouterr().err


@pytest.mark.parametrize("shell", ["bash", "zsh", "tcsh"])
def test_shells_complete_all_subcommands(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion", shell]) == 0
    out = capsys.readouterr().out
    assert all(one.name in out for one in SUBCOMMANDS)
    assert "max-tokens" in out


def test_a_shell_that_is_not_known_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion", "fish"]) == BAD_INPUT
    assert main(["completion"]) == BAD_INPUT
    assert "bash, zsh, tcsh" in capsys.readouterr().err


def test_one_parser_reads_every_subcommand() -> None:
    assert vars(everything().parse_args(["ask", "a.jpg", "-m", "blip-large"]))["model"] == "blip-large"


def test_an_interrupt_is_no_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr("gigarouter.fetch.main", interrupted)
    assert main(["fetch", "--all"]) == 130
