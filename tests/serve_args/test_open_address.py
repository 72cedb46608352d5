"""A router without keys is not started where others than this machine reach it."""

from __future__ import annotations

import pytest

from serve_args.open_address import SETTING, is_loopback, require_keys
from vlm.errors import ConfigError


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "::1", "localhost"])
def test_an_address_of_this_machine_alone_needs_no_keys(host: str) -> None:
    assert is_loopback(host)
    require_keys(host, has_keys=False, allow_without=False)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.1.2.3", "example.com"])
def test_another_address_does(host: str) -> None:
    with pytest.raises(ConfigError, match=rf"{host}.*database_url.*{SETTING}: true"):
        require_keys(host, has_keys=False, allow_without=False)
    require_keys(host, has_keys=True, allow_without=False)
    require_keys(host, has_keys=False, allow_without=True)


def test_a_process_of_no_cluster_serves_nobody() -> None:
    require_keys(None, has_keys=False, allow_without=False)
