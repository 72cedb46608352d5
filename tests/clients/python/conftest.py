"""Where the system is, and a skip of all of this where there is none."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.clients.python.stub import Stub, stub_before

HERE = Path(__file__).parent
SYSTEM = "GIGAROUTER_URL"
IMAGES = "GIGAROUTER_IMAGES_URL"

os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"  # else it downloads a list of prices whenever it is imported


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if SYSTEM not in os.environ:
        for item in items:
            if HERE in item.path.parents:
                item.add_marker(pytest.mark.skip(reason=f"needs a running system: `make clients` sets {SYSTEM}"))


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="session")
def system() -> str:
    """The system's address, ``http://127.0.0.1:PORT``."""
    return os.environ[SYSTEM]


@pytest.fixture(scope="session")
def url(system: str) -> str:
    """What clients call the base URL."""
    return f"{system}/v1"


@pytest.fixture(scope="session")
def image_url() -> str:
    """The address of the image on a web server that the system may download from."""
    if IMAGES not in os.environ:
        pytest.skip(f"needs a web server with the images: `make clients` sets {IMAGES}")
    return f"{os.environ[IMAGES]}/circle-and-square.png"


@pytest.fixture
def stub(system: str) -> Iterator[Stub]:
    with stub_before(system) as between:
        yield between
