"""Refuses to answer everybody: a router without keys must be out of reach, or be told that it may be reached."""

from __future__ import annotations

from ipaddress import ip_address

from vlm.errors import ConfigError

SETTING = "allow_without_keys"


def require_keys(host: str | None, *, has_keys: bool, allow_without: bool) -> None:
    """Check the address at which requests arrive.

    Args:
        host: Where the router listens itself; None where Serve's proxies do, whose address Serve is asked for.
        has_keys: Whether every request needs a key.
        allow_without: The setting ``allow_without_keys``.

    Raises:
        ConfigError: Others than this machine reach the router without a key, and the setting does not allow that.
    """
    if has_keys or allow_without:
        return
    found = _host_of_serve() if host is None else host
    if found is None or is_loopback(found):
        return
    raise ConfigError(
        f"The router asks for no keys, and others than this machine can reach it at {found}, who could all use it. Set "
        "database_url, so that every request needs a key (docs/accounts.md), or let Serve listen on 127.0.0.1. "
        f"Where whoever reaches this address may use it, {SETTING}: true in the args of the router starts it without.",
        SETTING,
    )


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches an address."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _host_of_serve() -> str | None:
    """Where Serve's proxies listen; None in a process of no cluster, which serves nobody."""
    import ray

    if not ray.is_initialized():
        return None
    from ray.serve.context import _get_global_client

    client = _get_global_client(raise_if_no_controller_running=False)
    return None if client is None else client.http_config.host
