"""Runs an image's files as an engine would: as its user, without rights, on a root that nothing can write to.

Namespaces of this machine's kernel stand in for the engine, so that root on Linux is needed, and nothing else. The
network is the container's own: it reaches nothing, and only who enters it reaches its ports.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

ENTER = r"""
set -eu
root=$1; shift
ip link set lo up
mount --bind "$root" "$root"
mount -t proc proc "$root/proc"
mount --rbind /sys "$root/sys"
mount -t tmpfs -o mode=755 dev "$root/dev"
for one in null zero full random urandom tty; do
    : >"$root/dev/$one"
    mount --bind "/dev/$one" "$root/dev/$one"
done
ln -s /proc/self/fd "$root/dev/fd"
mkdir "$root/dev/shm"
mount -t tmpfs -o mode=1777,size=1g shm "$root/dev/shm"
mount -t tmpfs -o mode=1777 tmp "$root/tmp"
mount -t tmpfs -o uid=1000,gid=1000 models "$root/models"
[ -e "$root/etc/hosts" ] || : >"$root/etc/hosts"
mount --bind /etc/hosts "$root/etc/hosts"
mount -o remount,bind,ro "$root"
exec chroot "$root" \
    setpriv --reuid=1000 --regid=1000 --clear-groups --no-new-privs --bounding-set=-all --inh-caps=-all "$@"
"""

ASK = """
import json, sys, urllib.request
url, body = json.load(sys.stdin)
data = None if body is None else json.dumps(body).encode()
request = urllib.request.Request(url, data, {"content-type": "application/json"})
print(urllib.request.urlopen(request, timeout=60).read().decode())
"""


@dataclass(frozen=True, slots=True)
class Container:
    """A process in namespaces of its own, and all that it starts."""

    outside: subprocess.Popen[bytes]

    @property
    def pid(self) -> int:
        """The image's own process, the first in its namespace."""
        (one,) = Path(f"/proc/{self.outside.pid}/task/{self.outside.pid}/children").read_text().split()
        return int(one)

    def ask(self, url: str, body: Mapping[str, Any] | None = None) -> Any:
        """The answer as JSON.

        Raises:
            CalledProcessError: There is none, or not with status 200.
        """
        command = ["nsenter", "--target", str(self.pid), "--net", sys.executable, "-c", ASK]
        asked = json.dumps([url, body])
        done = subprocess.run(command, input=asked, capture_output=True, text=True, check=True, timeout=90)
        return json.loads(done.stdout)

    def stop(self, timeout: float) -> int:
        """Send what compose.yaml sends, and wait for the end."""
        os.kill(self.pid, signal.SIGINT)
        return self.outside.wait(timeout)


@contextmanager
def running(root: Path, config: Mapping[str, Any], more: Mapping[str, str], log: IO[bytes]) -> Iterator[Container]:
    """What the image's own config says, with further variables; nothing of it is left afterwards."""
    variables = [*config["Env"], "HOME=/home/ray", *(f"{name}={value}" for name, value in more.items())]
    command = ["env", "--ignore-environment", f"--chdir={config['WorkingDir']}", *variables, *config["Cmd"]]
    with subprocess.Popen(entering(root, command), stdout=log, stderr=log, start_new_session=True) as outside:
        try:
            yield Container(outside)
        finally:
            outside.kill()


def entering(root: Path, command: Sequence[str]) -> list[str]:
    """The command in namespaces of its own, which end with the first process."""
    namespaces = ["unshare", "--mount", "--net", "--pid", "--fork", "--kill-child"]
    return [*namespaces, "sh", "-c", ENTER, "container", str(root), *command]
