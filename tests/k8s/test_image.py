"""The Dockerfile and .dockerignore: what gets into the image, and who it runs as.

The image itself is not built here; what is looked at is what would be done. test_built_image.py looks at what was.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from tests.k8s.objects import K8S, ROOT
from tests.test_architecture import PACKAGED
from tools.lock import split

DOCKERFILE = (ROOT / "Dockerfile").read_text("utf-8")
IGNORED = (ROOT / ".dockerignore").read_text("utf-8").splitlines()
TOOLS = re.compile(r"\b(gcc|g\+\+|clang|make|cmake|build-essential|apt-get|apk|git|curl|wget|cargo|npm)\b")
SECRET = re.compile(r"(PASSWORD|TOKEN|SECRET|API_?KEY)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Step:
    """An instruction of the Dockerfile."""

    name: str
    rest: str


def stages() -> list[list[Step]]:
    """The instructions of each stage; those before the first one are a stage of their own."""
    joined = re.sub(r"\\\n\s*", " ", re.sub(r"^#.*\n", "", DOCKERFILE, flags=re.MULTILINE))
    found: list[list[Step]] = [[]]
    for line in filter(None, (one.strip() for one in joined.splitlines())):
        name, _, rest = line.partition(" ")
        if name == "FROM":
            found.append([])
        found[-1].append(Step(name, rest))
    return found


def steps(name: str, stage: int = -1) -> list[str]:
    return [one.rest for one in stages()[stage] if one.name == name]


def copied() -> list[str]:
    """What is copied from the build's context, in all stages."""
    found = [rest.split() for stage in stages() for one in stage if one.name == "COPY" for rest in [one.rest]]
    return [source for words in found if not words[0].startswith("--from") for source in words[:-1]]


def test_hadolint_has_nothing_to_say() -> None:
    beside = Path(sys.executable).parent / "hadolint"
    hadolint = str(beside) if beside.exists() else shutil.which("hadolint")
    if hadolint is None:
        pytest.skip("hadolint is not installed; `make k8s-check` installs it")
    done = subprocess.run([hadolint, "Dockerfile"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")


def test_the_base_is_an_argument_and_pinned() -> None:
    (before, *following) = stages()
    (argument,) = (one.rest for one in before if one.name == "ARG")
    assert re.fullmatch(r"BASE=[\w./-]+:\d+\.\d+\.\d+-[\w-]+", argument)
    assert all(stage[0].rest.split()[0] == "${BASE}" for stage in following)


def test_it_runs_as_the_user_of_the_manifests_who_owns_nothing_of_the_product() -> None:
    assert steps("USER") == ["1000:1000"]
    assert "--uid 1000 --gid 1000" in steps("RUN")[0]
    assert not any("--chown" in one for one in steps("COPY"))


def test_no_tool_is_installed_and_no_package_either_in_the_last_stage() -> None:
    for one in steps("RUN"):
        assert not TOOLS.search(one), one
        assert "pip" not in one
    assert "--without-pip" in " ".join(steps("RUN", 1))


def test_the_list_of_packages_is_made_by_a_locked_tool_that_stays_behind() -> None:
    (done,) = (one for one in steps("RUN", 1) if "cyclonedx-py" in one)
    assert "--require-hashes --no-deps --requirement requirements/sbom.txt" in done
    assert "--from=packages /build/sbom.cdx.json ./" in steps("COPY")
    lock = split((ROOT / "requirements/sbom.txt").read_text("utf-8"))
    assert "cyclonedx-bom" in lock
    assert [name for name, entries in lock.items() if not all("--hash=sha256:" in one for one in entries)] == []


def test_nothing_starts_ray_while_it_is_built() -> None:
    """It would write a token into the image, and workers with another one could never join."""
    for stage in stages():
        for one in stage:
            if one.name == "RUN":
                assert not re.search(r"\b(ray (start|job|get-auth)|ray\.init|serve (run|deploy))\b", one.rest)


def test_no_secret_is_an_argument_or_a_variable() -> None:
    for stage in stages():
        for one in stage:
            if one.name in ("ARG", "ENV"):
                assert not SECRET.search(one.rest), one.rest


def test_packages_are_those_of_the_locks_with_their_sums() -> None:
    done = " ".join(steps("RUN", 1))
    assert "--require-hashes --no-deps --requirement requirements/run.lock" in done
    assert "--requirement requirements/torch.lock" in done
    assert not re.search(r"--extra-index-url", done)


def test_the_context_holds_what_is_copied_and_nothing_else() -> None:
    assert next(line for line in IGNORED if line and not line.startswith("#")) == "*"
    allowed = {line[1:] for line in IGNORED if line.startswith("!")}
    assert allowed == set(copied())
    assert "**/.*" in IGNORED
    for one in allowed:
        assert (ROOT / one).exists(), one


def test_all_of_the_product_is_copied() -> None:
    assert {*PACKAGED, "miniatures"} <= set(copied())


def test_the_config_for_laptops_finds_its_miniatures_there() -> None:
    (folder,) = steps("WORKDIR")
    config = yaml.safe_load((K8S / "overlays/kind/serve_config.yaml").read_text("utf-8"))
    for one in config["applications"][1:]:
        checkpoint = Path(one["args"]["checkpoint"])
        assert (ROOT / checkpoint.relative_to(folder) / "config.json").exists()
    assert any("serve_config.miniatures.yaml" in one for one in steps("CMD"))


def test_ray_is_found_by_a_shell_without_a_profile() -> None:
    assert any("PATH=/opt/venv/bin:$PATH" in one for one in steps("ENV"))
