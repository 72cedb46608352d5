"""No application starts on a cluster that anybody may command, unless the config says so.

Whether a cluster asks for a token is a substitute here; tests/router/test_serve.py asks a real one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest

import deployments.app
import router.app
from serve_args.cluster_auth import SETTING, require_token
from vlm.errors import ConfigError

pytestmark = pytest.mark.filterwarnings("ignore")  # of Ray, where these tests are the first to import it

BUILDERS: Mapping[str, tuple[Callable[[Mapping[str, Any]], Any], dict[str, Any]]] = {
    "router": (router.app.build, {"allow_without_keys": True}),
    "model": (deployments.app.build, {"checkpoint": "x"}),
}


def on_cluster(monkeypatch: pytest.MonkeyPatch, *, token: bool, connected: bool = True) -> None:
    """Have Ray report that this process belongs to a cluster, and whether that asks for a token."""
    import ray
    from ray._private.authentication import authentication_utils

    monkeypatch.setattr(ray, "is_initialized", lambda: connected)
    monkeypatch.setattr("serve_args.cluster_environment._of_every_node", list)  # there are no nodes to ask
    monkeypatch.setattr(authentication_utils, "is_token_auth_enabled", lambda: token)


@pytest.mark.parametrize("name", BUILDERS)
def test_an_application_needs_a_token_or_consent(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    build, args = BUILDERS[name]
    on_cluster(monkeypatch, token=False)
    with pytest.raises(ConfigError, match="does not ask for a token") as caught:
        build(args)
    assert caught.value.param == SETTING
    with pytest.raises(ConfigError, match="does not ask for a token"):
        build({**args, SETTING: False})
    assert build({**args, SETTING: True})
    on_cluster(monkeypatch, token=True)
    assert build(args)


def test_the_refusal_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    on_cluster(monkeypatch, token=False)
    with pytest.raises(ConfigError) as caught:
        require_token(allow_without=False)
    for part in ("ray get-auth-token --generate", "RAY_AUTH_MODE=token", "~/.ray/auth_token", f"{SETTING}: true"):
        assert part in caught.value.message


def test_where_there_is_no_cluster_nothing_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    on_cluster(monkeypatch, token=False, connected=False)
    require_token(allow_without=False)


@pytest.mark.parametrize("value", ["true", 1, "yes"])
def test_consent_is_true_and_nothing_like_it(value: object) -> None:
    for build, args in BUILDERS.values():
        with pytest.raises(ConfigError, match=f"{SETTING} must be true or false"):
            build({**args, SETTING: value})
