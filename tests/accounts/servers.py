"""PostgreSQL and Redis for tests: servers of our own on free ports of this machine, which end with the tests.

Each runs below a shell that waits for its input: for a word, or for the end that comes when the process of the test is
killed; then the shell also removes the server's folder.
"""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import psycopg
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from tests.listening import kept_port

HOST = "127.0.0.1"
PATIENCE_S = 60.0
USER = "gigarouter"
_POSTGRESQL = Path("/usr/lib/postgresql")
_GUARD = """
folder=$1; shift
"$@" </dev/null & server=$!
read -r _ || lost=yes
kill -INT $server
wait $server
[ -z "$lost" ] || rm -rf "$folder"
"""


class Server:
    """A program that listens on a port, and can be stopped and started again with the same data.

    Attributes:
        folder: For its data and its log, writable by the user that it runs as.
        port: Where it listens.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = kept_port()
        self._guard: subprocess.Popen[bytes] | None = None

    def command(self) -> list[str]:
        """What is run."""
        raise NotImplementedError

    def answers(self) -> bool:
        """Whether it can be asked."""
        raise NotImplementedError

    def start(self) -> None:
        """Return when it answers."""
        log = self.folder / "log"
        with log.open("ab") as opened:
            command = ["/bin/sh", "-c", _GUARD, "sh", str(self.folder), *self.command()]
            self._guard = _started(command, stdout=opened, cwd=self.folder)
        end = time.monotonic() + PATIENCE_S
        while not self.answers():
            said = log.read_text("utf-8")
            assert self._guard.poll() is None, said
            assert time.monotonic() < end, said
            time.sleep(0.02)

    def stop(self) -> None:
        """Return when it has ended."""
        if self._guard is not None:
            self._guard.communicate(b"end\n", PATIENCE_S)
            self._guard = None


class PostgreSQL(Server):
    """Without a password, for whoever reaches this machine's own address."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        make = [program("initdb"), "--no-sync", "--auth=trust", f"--username={USER}", "--encoding=UTF8", "--locale=C"]
        output, _ = _started([*make, str(self._data)], cwd=folder).communicate(timeout=PATIENCE_S)
        assert (self._data / "PG_VERSION").exists() or os.getuid() == 0, output

    @property
    def _data(self) -> Path:
        return self.folder / "data"

    def url(self, name: str = "postgres") -> str:
        """That of a database of the server."""
        return f"postgresql://{USER}@{HOST}:{self.port}/{name}"

    def command(self) -> list[str]:
        """Without writing to the disk, which nobody needs after the test."""
        settings = {"fsync": "off", "full_page_writes": "off", "unix_socket_directories": "", "shared_buffers": "32MB"}
        options = [f"--{name}={value}" for name, value in settings.items()]
        return [program("postgres"), "-D", str(self._data), "-h", HOST, "-p", str(self.port), *options]

    def answers(self) -> bool:
        """Whether it can be asked."""
        try:
            psycopg.connect(self.url(), connect_timeout=2).close()
        except psycopg.OperationalError:
            return False
        return True

    def run(self, statement: str) -> None:
        """Run a statement outside of a transaction, in the database ``postgres``."""
        with psycopg.connect(self.url(), autocommit=True) as connection:
            connection.execute(statement.encode())

    def copy(self, template: str, name: str) -> None:
        """Make a database that is like another, which nobody is connected to."""
        with psycopg.connect(self.url(), autocommit=True) as connection:
            # Since version 15, the default writes the copy to the log, which takes fifteen times as long.
            strategy = " STRATEGY FILE_COPY" if connection.info.server_version >= 150_000 else ""
            connection.execute(f"CREATE DATABASE {name} TEMPLATE {template}{strategy}".encode())


class Redis(Server):
    """Without a password, and without a file."""

    @property
    def url(self) -> str:
        """That of its first database."""
        return f"redis://{HOST}:{self.port}/0"

    def command(self) -> list[str]:
        """What is run."""
        options = ["--bind", HOST, "--port", str(self.port), "--dir", str(self.folder), "--save", ""]
        return [program("redis-server"), *options, "--daemonize", "no"]

    def answers(self) -> bool:
        """Whether it can be asked."""
        try:
            with self._client() as client:
                return bool(client.ping())
        except redis.ConnectionError:
            return False

    def clear(self) -> None:
        """Remove all that it keeps."""
        with self._client() as client:
            client.flushall()

    def _client(self) -> redis.Redis:
        return redis.Redis(host=HOST, port=self.port, retry=Retry(NoBackoff(), 0))


@contextmanager
def running_postgresql() -> Iterator[PostgreSQL]:
    """A server until the end of the block; :func:`program` must have found ``initdb``."""
    with _folder() as folder:
        server = PostgreSQL(folder)
        with _running(server):
            yield server


@contextmanager
def running_redis() -> Iterator[Redis]:
    """A server until the end of the block; :func:`program` must have found ``redis-server``."""
    with _folder() as folder:
        server = Redis(folder)
        with _running(server):
            yield server


@contextmanager
def _running(server: Server) -> Iterator[None]:
    try:
        server.start()
        yield
    finally:
        server.stop()


@contextmanager
def _folder() -> Iterator[Path]:
    """Not below pytest's folders, which only their owner may enter."""
    folder = Path(tempfile.mkdtemp(prefix="gr-", dir="/tmp"))
    try:
        if (user := _user()) is not None:
            os.chown(folder, user.pw_uid, user.pw_gid)
        yield folder
    finally:
        shutil.rmtree(folder)


def program(name: str) -> str:
    """Where a program is, or an empty text: Debian keeps those of PostgreSQL in a folder of its own."""
    versions = sorted(_POSTGRESQL.glob("*/bin"), key=lambda path: int(path.parent.name))
    path = os.pathsep.join([os.environ.get("PATH", ""), *map(str, reversed(versions))])
    return shutil.which(name, path=path) or ""


def _user() -> pwd.struct_passwd | None:
    """Whom the servers run as, because PostgreSQL refuses to run as root; None where nobody is root."""
    if os.getuid() != 0:
        return None
    known = {user.pw_name: user for user in pwd.getpwall()}
    return known.get("postgres") or known["nobody"]


def _started(command: list[str], *, cwd: Path, stdout: int | IO[bytes] = subprocess.PIPE) -> subprocess.Popen[bytes]:
    """In a session of its own: who ends the tests from the keyboard leaves it to the guard to end the server."""
    user = _user()
    return subprocess.Popen(
        command, cwd=cwd, stdin=subprocess.PIPE, stdout=stdout, stderr=subprocess.STDOUT, start_new_session=True,
        user=user and user.pw_uid, group=user and user.pw_gid, extra_groups=[] if user else None,
    )  # fmt: skip
