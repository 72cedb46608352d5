"""The Job that makes the tables of accounts: what it runs, on a PostgreSQL of our own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator

import pytest

from accounts.database import open_database
from accounts.migrate import require_current
from tests.accounts.servers import PostgreSQL, program, running_postgresql
from tests.k8s.objects import ROOT, Object, built, env_of, of_kind

PASSWORD = "5241590000000000"
ROLE = "router"


@pytest.fixture(scope="module")
def job() -> Object:
    """The container of the Job."""
    objects = built(ROOT / "k8s/overlays/gpu-single")
    (found,) = (one for one in of_kind(objects, "Job") if one["metadata"]["name"] == "gigarouter-migrate")
    container: Object = found["spec"]["template"]["spec"]["containers"][0]
    return container


@pytest.fixture(scope="module")
def server() -> Iterator[PostgreSQL]:
    if not program("initdb"):
        pytest.skip("there is no PostgreSQL on this machine")
    with running_postgresql() as server:
        server.run(f"CREATE ROLE {ROLE} LOGIN PASSWORD '{PASSWORD}'")
        yield server


def run(job: Object, url: str) -> subprocess.CompletedProcess[str]:
    """The command of the Job, which knows no other variables than those of its container."""
    assert "GIGAROUTER_DATABASE_URL" in env_of(job)
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "GIGAROUTER_DATABASE_URL": url}
    command = [sys.executable, "-m", *job["command"]]
    return subprocess.run(command, env=environment, cwd="/", capture_output=True, text=True, check=False, timeout=120)


def test_it_makes_the_tables_with_few_rights_and_then_does_nothing(job: Object, server: PostgreSQL) -> None:
    server.run("CREATE DATABASE accounts")
    server.run(f"ALTER DATABASE accounts OWNER TO {ROLE}")
    url = server.url("accounts").replace("gigarouter@", f"{ROLE}:{PASSWORD}@")
    for _ in range(2):
        done = run(job, url)
        assert (done.returncode, done.stderr) == (0, "")
        assert PASSWORD not in done.stdout
    database = open_database(url)
    try:
        require_current(database)
    finally:
        database.close()


def test_it_fails_without_showing_the_password(job: Object) -> None:
    done = run(job, f"postgresql://{ROLE}:{PASSWORD}@127.0.0.1:1/accounts")
    assert done.returncode != 0
    assert done.stderr
    assert PASSWORD not in done.stdout + done.stderr
