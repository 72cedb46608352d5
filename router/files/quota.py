"""How many files there may be, and how many bytes of them: of one owner, and of all together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from router.asgi.errors import FileQuotaExceeded, FileStoreFull
from router.config import RouterConfig
from router.files.file_id import FileId
from vlm.errors import VlmError

Likeness = tuple[str, bytes, int]


@dataclass(frozen=True, slots=True)
class Listed:
    """A file in a list of the store.

    Attributes:
        scope: Folder of its owner.
        id: Its id.
        ready: Whether its upload is complete; until then it only takes its place.
    """

    scope: str
    id: FileId
    ready: bool

    @property
    def likeness(self) -> Likeness:
        """The same for equal files of one owner."""
        return self.scope, self.id.digest, self.id.size

    @property
    def path(self) -> str:
        """Where the store has what is known of it beside its id."""
        return f"files/{self.scope}/{self.id}"


def fault_of(listed: Sequence[Listed], scope: str, config: RouterConfig) -> VlmError | None:
    """Why there is no room for all files of a list, the newest of which has this scope; None where there is.

    Equal files are stored once, but each of them counts: what is stored is never more than what is counted.
    """
    own = [one.id.size for one in listed if one.scope == scope]
    if len(own) > config.max_files_per_caller or sum(own) > config.max_file_bytes_per_caller:
        return FileQuotaExceeded(
            f"You have as many files as you may have: {config.max_files_per_caller}, with "
            f"{config.max_file_bytes_per_caller} bytes together. Delete some, or upload with an earlier expires_after."
        )
    if len(listed) > config.max_files or sum(one.id.size for one in listed) > config.max_file_store_bytes:
        return FileStoreFull(
            "This server has no room for more files until others expire or are deleted; send the image within the "
            "request."
        )
    return None
