"""What each process of Ray does before Serve opens a port in it; tests/deployments/test_system.py has the result."""

from __future__ import annotations

import sys
import warnings
from unittest.mock import Mock

import pytest

from deployments.local import loopback

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # Ray's own, while it is imported
    from ray import cloudpickle
    from ray._common import tls_utils


@pytest.mark.parametrize(
    ("asked", "opened"),
    [("[::]:0", "127.0.0.1:0"), ("[::]:8123", "127.0.0.1:8123"), ("10.0.0.1:0", "10.0.0.1:0"), ("[::1]:0", "[::1]:0")],
)
def test_a_port_on_every_interface_is_opened_on_the_loopback(
    asked: str, opened: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    bind = Mock(return_value=8123)
    monkeypatch.setattr(tls_utils, "add_port_to_grpc_server", bind)
    loopback.hook()()
    assert tls_utils.add_port_to_grpc_server("server", asked) == 8123
    bind.assert_called_once_with("server", opened)


def test_the_hook_travels_by_value(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where Ray unpickles it, this package need not be found."""
    pickled = cloudpickle.dumps(loopback.hook())
    monkeypatch.setitem(sys.modules, "deployments.local.loopback", None)
    assert callable(cloudpickle.loads(pickled))
