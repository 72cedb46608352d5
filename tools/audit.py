"""python -m tools.audit: whether the locked versions have known vulnerabilities. Part of ``make check``.

pip-audit asks the package index about every line of the locks. If it cannot be reached, this is printed and
does not fail, so that the checks run without a network; a vulnerability fails, and so does a broken audit.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from tools.lock import FOLDER, split

ACCEPTED: dict[str, str] = {}
"""Vulnerabilities that do not concern this project, by their id, each with the reason."""

_COMMAND = [
    sys.executable, "-m", "pip_audit", "--format", "json", "--progress-spinner", "off", "--timeout", "10",
    "--no-deps", "--disable-pip",
]  # fmt: skip
_PATIENCE = 300.0
_UNREACHABLE = ("ConnectionError", "Could not connect", "Timeout", "ServiceError", "requests.exceptions.")
"""What pip-audit's last line contains if the service was not reached or did not answer properly."""

_ADVICE = """\
`make lock` takes repaired versions as far as the ranges in pyproject.toml allow; widen a range that does not. Where
no version is repaired, or the fault cannot be reached from here, name it in ACCEPTED in tools/audit.py, and say why."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """The result of an audit, and whether the check has passed."""

    passed: bool
    text: str


def main() -> int:
    """Print the verdict; 1 where the check has not passed."""
    locks = [path.read_text("utf-8") for path in sorted(FOLDER.glob("*.lock"))]
    try:
        with TemporaryDirectory() as scratch:
            ran = [_asked(Path(scratch) / "locked.txt", text) for text in pins(locks)]
    except subprocess.TimeoutExpired:
        verdict = _not_looked(f"no answer after {_PATIENCE:.0f} seconds")
    else:
        verdict = judged(ran)
    print(f"audit: {verdict.text}", file=sys.stdout if verdict.passed else sys.stderr)
    return 0 if verdict.passed else 1


def pins(locks: Iterable[str]) -> list[str]:
    """Every locked version, whatever Python it is for, as requirements files for one call of pip-audit each.

    It wants sums for every line or for none, and no package twice.
    """
    versions: dict[str, list[str]] = {}
    for lock in locks:
        for name, entries in split(lock).items():
            versions.setdefault(name, []).extend(entry.split()[0] for entry in entries)
    rounds = zip_longest(*versions.values())
    return ["".join(f"{one}\n" for one in dict.fromkeys(each) if one) for each in rounds]


def _asked(path: Path, requirements: str) -> subprocess.CompletedProcess[str]:
    path.write_text(requirements, "utf-8")
    ignored = [part for known in ACCEPTED for part in ("--ignore-vuln", known)]
    command = [*_COMMAND, *ignored, "--requirement", str(path)]
    return subprocess.run(command, check=False, capture_output=True, text=True, timeout=_PATIENCE)  # noqa: S603


def judged(audits: Iterable[subprocess.CompletedProcess[str]]) -> Verdict:
    """What pip-audit's outputs mean. Its exit status is not enough: it is 0 even if no package could be looked up."""
    found: list[dict[str, Any]] = []
    unreached = ""
    for audit in audits:
        try:
            found += json.loads(audit.stdout)["dependencies"]
        except (ValueError, KeyError, TypeError):
            unreached = audit.stderr.strip().rpartition("\n")[2]
            if not any(word in unreached for word in _UNREACHABLE):
                return Verdict(passed=False, text=f"pip-audit does not work:\n{audit.stderr.strip()}")
    faults = [_fault(package, one) for package in found for one in package.get("vulns", ())]
    skipped = [package["name"] for package in found if "skip_reason" in package]
    if faults:
        return Verdict(passed=False, text="\n".join([f"{len(faults)} known vulnerabilities:", *faults, _ADVICE]))
    if unreached:
        return _not_looked(unreached)
    if len(skipped) == len(found):
        return _not_looked(f"the package index has no such record of any of {len(found)} packages")
    text = f"no known vulnerabilities in {len(found) - len(skipped)} packages"
    if skipped:
        text += f"; COULD NOT LOOK UP {len(skipped)}: {', '.join(skipped)}"
    return Verdict(passed=True, text=text)


def _not_looked(reason: str) -> Verdict:
    return Verdict(
        passed=True,
        text=f"COULD NOT LOOK for known vulnerabilities, so this check says nothing about them: {reason}",
    )


def _fault(package: dict[str, Any], one: dict[str, Any]) -> str:
    repaired = ", ".join(one["fix_versions"]) or "no version"
    names = " ".join([one["id"], *one["aliases"]])
    return f"  {package['name']} {package['version']}: {names}, repaired in {repaired}"


if __name__ == "__main__":
    sys.exit(main())
