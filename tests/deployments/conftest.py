"""One running system for all tests of this folder that need it; the last test of test_system.py ends it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.deployments.system import System, with_narrow_model


@pytest.fixture(scope="session")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    folder = tmp_path_factory.mktemp("system")
    running = System(folder, "--config", str(with_narrow_model(folder)))
    try:
        running.wait_for("ready:", 300)
        yield running
    finally:
        running.end()
