"""A Ray cluster of a test's own with Serve's proxy on a free port of the loopback."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import pytest

from tests.listening import kept_port

WITHOUT_TOKEN = {"allow_unauthenticated_cluster": True}
"""For ``build``: the cluster asks for no token, so that one of the user's own is not in the way."""


@contextmanager
def cluster(environment: Mapping[str, str] = {}) -> Iterator[int]:
    """Start it, with ``environment`` in all its processes, and yield the port; it is stopped in any case."""
    ray = pytest.importorskip("ray")
    from ray import serve

    with pytest.MonkeyPatch.context() as patch:
        for name, value in {**environment, "RAY_AUTH_MODE": "disabled"}.items():
            patch.setenv(name, value)
        port = kept_port()
        try:
            ray.init(address="local", num_cpus=1, include_dashboard=False, log_to_driver=False)
            serve.start(http_options={"host": "127.0.0.1", "port": port})
            yield port
        finally:
            serve.shutdown()
            ray.shutdown()
