"""What the audit says: of vulnerabilities, of a service that cannot be reached, and of an audit that does not work."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pytest

from tools import audit

SOUND: dict[str, Any] = {"name": "numpy", "version": "2.4.6", "vulns": []}
UNKNOWN: dict[str, Any] = {"name": "ours", "skip_reason": "Dependency not found on PyPI"}
FAULTY: dict[str, Any] = {
    "name": "pillow",
    "version": "13.0.0",
    "vulns": [{"id": "PYSEC-1", "aliases": ["CVE-2026-1"], "fix_versions": ["13.0.1"]}],
}
OFFLINE = "Traceback\n  raise\nrequests.exceptions.ConnectionError: HTTPSConnectionPool: Failed to resolve"


def answered(*packages: dict[str, Any]) -> CompletedProcess[str]:
    return CompletedProcess([], 0, json.dumps({"dependencies": packages, "fixes": []}), "WARNING: of no interest")


def died(words: str) -> CompletedProcess[str]:
    return CompletedProcess([], 1, "", words)


def test_nothing_is_known() -> None:
    assert audit.judged([answered(SOUND), answered(SOUND)]) == audit.Verdict(
        passed=True, text="no known vulnerabilities in 2 packages"
    )


@pytest.mark.parametrize("other", [answered(SOUND), answered(UNKNOWN), died(OFFLINE)])
def test_a_vulnerability_fails_with_advice(other: CompletedProcess[str]) -> None:
    verdict = audit.judged([answered(FAULTY), other])
    assert not verdict.passed
    assert "pillow 13.0.0: PYSEC-1 CVE-2026-1, repaired in 13.0.1" in verdict.text
    assert "make lock" in verdict.text


@pytest.mark.parametrize(
    "last",
    [
        OFFLINE,
        "ERROR:pip_audit._cli:Could not connect to PyPI's vulnerability feed",
        "requests.exceptions.ReadTimeout: ",
    ],
)
def test_without_network_it_says_so_and_passes(last: str) -> None:
    verdict = audit.judged([died(last)])
    assert verdict.passed
    assert "COULD NOT LOOK" in verdict.text


def test_an_index_without_records_is_no_all_clear() -> None:
    """pip-audit itself says "no known vulnerabilities" then, and exits with 0."""
    verdict = audit.judged([answered(UNKNOWN, UNKNOWN)])
    assert verdict.passed
    assert "COULD NOT LOOK for" in verdict.text


def test_packages_that_were_not_found_are_named() -> None:
    assert audit.judged([answered(SOUND, UNKNOWN)]).text.endswith("COULD NOT LOOK UP 1: ours")


def test_an_audit_that_does_not_work_fails() -> None:
    verdict = audit.judged([died("ERROR:pip_audit._cli:invalid requirements input")])
    assert not verdict.passed
    assert "invalid requirements input" in verdict.text


def test_every_locked_version_is_asked_about_without_its_sums() -> None:
    one = "a==1 ; python_full_version < '3.12' \\\n    --hash=sha256:00\na==2 \\\n    --hash=sha256:01\nb==3\n"
    assert audit.pins([one, "c==4\n"]) == ["a==1\nb==3\nc==4\n", "a==2\n"]


@pytest.mark.parametrize(("package", "status"), [(SOUND, 0), (FAULTY, 1)])
def test_the_command(
    package: dict[str, Any],
    status: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """With a stand-in for pip-audit, that notes what it was asked."""
    stand_in = tmp_path / "pip_audit.py"
    answer = answered(package).stdout
    stand_in.write_text(f"import sys\nopen({str(tmp_path / 'asked')!r}, 'a').write(open(sys.argv[-1]).read())\n"
                        f"print({answer!r})\n", "utf-8")  # fmt: skip
    monkeypatch.setattr(audit, "_COMMAND", [sys.executable, str(stand_in)])
    assert audit.main() == status
    said = capsys.readouterr()
    assert ("known vulnerabilities:" in said.err) if status else ("audit: no known" in said.out)
    assert "torch==2." in (tmp_path / "asked").read_text("utf-8")


def test_an_answer_that_does_not_come(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(audit, "_COMMAND", [sys.executable, "-c", "import time; time.sleep(60)"])
    monkeypatch.setattr(audit, "_PATIENCE", 0.2)
    assert audit.main() == 0
    assert "COULD NOT LOOK" in capsys.readouterr().out
