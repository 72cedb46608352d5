"""What is in the layers of an image, as `buildah push ... oci:FOLDER` writes them."""

from __future__ import annotations

import json
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True)
class Entry:
    """A file, folder or link of a layer."""

    name: str
    info: tarfile.TarInfo
    layer: int

    @property
    def special(self) -> bool:
        """Whether it gives more rights than its caller has."""
        return self.info.isfile() and bool(self.info.mode & 0o6000)

    @property
    def writable_by_others(self) -> bool:
        """Whether more than its owner may write, and replace what others have put there."""
        sticky = self.info.isdir() and self.info.mode & 0o1000
        return not self.info.issym() and bool(self.info.mode & 0o002) and not sticky


class Layers:
    """An image in the OCI layout."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @cached_property
    def manifest(self) -> Any:
        return self._json(json.loads((self._folder / "index.json").read_text("utf-8"))["manifests"][0]["digest"])

    @cached_property
    def config(self) -> Any:
        return self._json(self.manifest["config"]["digest"])

    @property
    def compressed_bytes(self) -> int:
        """What a registry holds and a node fetches."""
        return sum(one["size"] for one in self.manifest["layers"])

    @cached_property
    def entries(self) -> list[Entry]:
        """What each layer has, also what a later one removes or replaces."""
        return [entry for entry, _ in self._read()]

    @cached_property
    def final(self) -> dict[str, Entry]:
        """What a container sees, by its path."""
        found: dict[str, Entry] = {}
        for entry in self.entries:
            folder, _, name = entry.name.rpartition("/")
            if name.startswith(".wh."):
                gone = f"{folder}/{name.removeprefix('.wh.')}"
                found = {path: one for path, one in found.items() if path != gone and not path.startswith(f"{gone}/")}
            else:
                found[entry.name] = entry
        return found

    def texts(self, limit: int) -> Iterator[tuple[Entry, bytes]]:
        """Each file of at most so many bytes, in whatever layer it is."""
        for entry, tar in self._read():
            if entry.info.isfile() and entry.info.size <= limit:
                file = tar.extractfile(entry.info)
                assert file is not None
                yield entry, file.read()

    def _read(self) -> Iterator[tuple[Entry, tarfile.TarFile]]:
        for number, layer in enumerate(self.manifest["layers"]):
            with tarfile.open(self._blob(layer["digest"]), "r|gz") as tar:
                for info in tar:
                    yield Entry(f"/{info.name.removeprefix('./').strip('/')}", info, number), tar

    def _json(self, digest: str) -> Any:
        return json.loads(self._blob(digest).read_text("utf-8"))

    def _blob(self, digest: str) -> Path:
        return self._folder / "blobs" / digest.replace(":", "/")
