"""Refuses to start on a Ray cluster that anybody who reaches its ports may command.

Ray's processes unpickle what reaches their ports, so whoever reaches one can run any code there, unless the cluster
asks for a token.
"""

from __future__ import annotations

from vlm.errors import ConfigError

SETTING = "allow_unauthenticated_cluster"


def require_token(*, allow_without: bool) -> None:
    """Check the cluster that this process belongs to; in a process of no cluster there is nothing to check.

    Serve builds applications in a process of the cluster, whose environment is that of ``ray start`` and not that of
    ``serve deploy``. Hence it is Ray that is asked, and hence the consent is a setting in the Serve config.

    Args:
        allow_without: The setting ``allow_unauthenticated_cluster``.

    Raises:
        ConfigError: The cluster takes commands without a token, and the setting does not allow that.
    """
    if allow_without or not _is_open():
        return
    raise ConfigError(
        "This Ray cluster does not ask for a token, so whoever reaches one of its ports can run any code on it. Make a "
        "token with `ray get-auth-token --generate`, copy ~/.ray/auth_token to every node, and start Ray on each with "
        "RAY_AUTH_MODE=token in its environment; docs/security.md has the steps. Where nobody else can reach those "
        f"ports, {SETTING}: true in the args of each application starts it without.",
        SETTING,
    )


def _is_open() -> bool:
    """Whether this process belongs to a cluster that asks for no token."""
    import ray
    from ray._private.authentication import authentication_utils  # Ray has no public call for it

    return ray.is_initialized() and not authentication_utils.is_token_auth_enabled()
