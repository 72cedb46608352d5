"""What a Serve config says of accounts is checked before it is deployed."""

from __future__ import annotations

from typing import Any

import pytest

from deployments.check_accounts import accounts_problems, keys_problems
from deployments.check_problem import Problem

ARGS = "applications.router.args"
HERE: dict[str, Any] = {
    "database_url": "sqlite:////srv/accounts.db",
    "prices": {"florence-2-base": "0.094"},
}
THERE: dict[str, Any] = {**HERE, "database_url": "environment", "redis_url": "environment"}
SCALED: dict[str, Any] = {"autoscaling_config": {"min_replicas": 1, "max_replicas": 4}}


def config(args: dict[str, Any], host: str | None = "0.0.0.0", **deployment: Any) -> dict[str, Any]:
    router = {"name": "router", "import_path": "router.app:build", "args": args}
    model = {"name": "florence-2-base", "import_path": "deployments.app:build"}
    return {
        **({} if host is None else {"http_options": {"host": host}}),
        "applications": [{**router, "deployments": [{"name": "Router", **deployment}]}, model],
    }


def found(args: dict[str, Any], **deployment: Any) -> list[Problem]:
    return list(accounts_problems(config(args, **deployment)))


@pytest.mark.parametrize(
    ("args", "deployment"),
    [
        (HERE, {}),
        (HERE, {"num_replicas": 1}),
        ({**HERE, "redis_url": "redis://here:6379/0"}, {"num_replicas": 1}),
        (THERE, SCALED),
        (THERE, {"num_replicas": 2, "max_replicas_per_node": 1}),
        ({**THERE, "key_limits": {"*": {"requests": 60}, "florence-2-base": {"images": 9}}}, {}),
        ({**THERE, "outbox_folder": "/var/lib/gigarouter/outbox", "free_credit": "5"}, {}),
        ({**THERE, "prices": {"florence-2-base": {"image": "1", "tasks": {"ocr": {"each": "1"}}}}}, {}),
        ({"allow_without_keys": True}, SCALED),
    ],
)  # fmt: skip
def test_what_goes_together_has_no_problem(args: dict[str, Any], deployment: dict[str, Any]) -> None:
    assert found(args, **deployment) == []
    assert list(keys_problems(config(args, **deployment))) == []


@pytest.mark.parametrize(
    ("args", "deployment", "place", "words"),
    [
        ({**THERE, "allow_without_keys": True}, {}, "allow_without_keys", "contradicts database_url"),
        ({**THERE, "outbox_folder": "outbox"}, {}, "outbox_folder", "must begin with /"),
        ({**HERE, "redis_url": "environment"}, {"num_replicas": 2, "max_replicas_per_node": 1}, "database_url",
         "is a file of one machine, and 2 routers are on several. Name a PostgreSQL."),
        ({**THERE, "key_limits": {"florence": {"images": 9}}}, {}, "key_limits", "Did you mean 'florence-2-base'?"),
        ({**THERE, "prices": {"florence-2-base": {"image": "1", "tasks": {"orc": {}}}}}, {},
         "prices.florence-2-base.tasks.orc", "is no task of florence-2-base. Did you mean 'ocr'?"),
    ],
)  # fmt: skip
def test_what_cannot_work_is_refused(args: dict[str, Any], deployment: dict[str, Any], place: str, words: str) -> None:
    [problem] = found(args, **deployment)
    assert (problem.place, problem.is_warning) == (f"{ARGS}.{place}", False)
    assert words in problem.message


@pytest.mark.parametrize(
    ("args", "deployment", "place", "words"),
    [
        ({**THERE, "redis_url": None}, SCALED, "redis_url", "each router counts the limits of keys by itself, and 4 r"),
        ({**THERE, "redis_url": None}, {"num_replicas": "auto"}, "redis_url", "several routers let in"),
        ({**HERE, "redis_url": "environment"}, SCALED, "database_url", "so that 4 routers must be on one node"),
        ({**THERE, "prices": {}}, {}, "prices", "has none of florence-2-base, which then costs nothing"),
        ({"free_credit": "5"}, {}, "free_credit", "has no effect without database_url"),
        ({"redis_url": "environment"}, {}, "redis_url", "has no effect without database_url"),
    ],
)  # fmt: skip
def test_what_works_otherwise_than_one_may_think_is_a_warning(
    args: dict[str, Any], deployment: dict[str, Any], place: str, words: str
) -> None:
    [problem] = found(args, **deployment)
    assert (problem.place, problem.is_warning) == (f"{ARGS}.{place}", True)
    assert words in problem.message


@pytest.mark.parametrize("host", ["0.0.0.0", "10.1.2.3", "gigarouter.example.com", None])
def test_who_asks_for_no_keys_is_not_reached_from_elsewhere(host: str | None) -> None:
    [problem] = keys_problems(config({}, host))
    assert (problem.place, problem.is_warning) == (f"{ARGS}.database_url", False)
    assert "refuses to start" in problem.message


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1"])
def test_this_machine_alone_needs_no_keys(host: str) -> None:
    assert list(keys_problems(config({}, host))) == []


def test_a_router_that_listens_itself_says_where() -> None:
    assert list(keys_problems(config({"listen": "127.0.0.1:8000"}))) == []
    [problem] = keys_problems(config({"listen": "0.0.0.0:8000"}, "127.0.0.1"))
    assert "0.0.0.0 is reached" in problem.message


@pytest.mark.parametrize("args", [{"database_url": "postgresql://user:password@host/x"}, {"listen": "x"}])
def test_settings_that_cannot_be_read_are_for_their_reader_to_report(args: dict[str, Any]) -> None:
    assert list(accounts_problems(config(args))) == list(keys_problems(config(args))) == []
