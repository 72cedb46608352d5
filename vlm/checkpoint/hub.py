"""Fetches files of the Hugging Face hub at a pinned revision, and explains each way in which that can fail.

Fetches into the hub's own cache, or finds the files there. Never fetches pickles or Python code.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from vlm.errors import CheckpointError

HUB_FILES = ("*.json", "*.safetensors", "vocab.txt", "merges.txt", "*.model")
NESTED = "*/*"  # hub repositories keep exports for other runtimes in subfolders

Report = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class HubFile:
    """A file of another hub repository than the checkpoint's: ``name`` at the full commit id ``revision``."""

    repository: str
    revision: str
    name: str


def download(hub_id: str, revision: str, report: Report) -> Path:
    """The folder in the hub's cache that holds the repository's files. Raises CheckpointError."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HTTPError  # type: ignore[attr-defined]  # root of the HTTP library it uses

    report(f"fetching {hub_id} at {revision}")
    try:
        folder = snapshot_download(
            hub_id,
            revision=revision,
            allow_patterns=list(HUB_FILES),
            ignore_patterns=[NESTED],
            local_files_only=_is_offline(),  # some versions would otherwise ask the hub what the revision holds
        )
    except (HTTPError, OSError, ValueError, RuntimeError) as error:
        raise _failure(hub_id, hub_id, revision, error) from error
    return Path(folder)


def download_file(file: HubFile, report: Report) -> Path:
    """The path in the hub's cache of one file. Raises CheckpointError."""
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HTTPError  # type: ignore[attr-defined]  # root of the HTTP library it uses

    report(f"fetching {file.name} of {file.repository} at {file.revision}")
    try:
        return Path(hf_hub_download(file.repository, file.name, revision=file.revision))
    except (HTTPError, OSError, ValueError, RuntimeError) as error:
        raise _failure(f"{file.name} of {file.repository}", file.repository, file.revision, error) from error


def _failure(what: str, repository: str, revision: str, error: Exception) -> CheckpointError:
    """What to do about an error of huggingface_hub. Its text is long, and about functions that users do not call."""
    from huggingface_hub.errors import (
        GatedRepoError,
        LocalEntryNotFoundError,
        OfflineModeIsEnabled,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    match error:
        case GatedRepoError():  # a subclass of RepositoryNotFoundError, so it comes first
            return CheckpointError(
                f"{repository} is gated: accept its terms on https://huggingface.co/{repository}, then log in with "
                "`hf auth login` or set HF_TOKEN."
            )
        case RepositoryNotFoundError():
            return CheckpointError(
                f"The hub has no repository {repository}, or it is private. Check the name; for a private one log in "
                "with `hf auth login` or set HF_TOKEN."
            )
        case RevisionNotFoundError():
            return CheckpointError(
                f"{repository} has no revision {revision}. Take a full commit id from "
                f"https://huggingface.co/{repository}/commits/main."
            )
        case LocalEntryNotFoundError() | OfflineModeIsEnabled() if _is_offline():
            return CheckpointError(
                f"{what} at revision {revision} is not in the hub's cache, and HF_HUB_OFFLINE forbids fetching it. "
                "Unset it, set HF_HOME to a cache that holds the files, or name a local folder instead."
            )
    return CheckpointError(
        f"{what} at revision {revision} is not in the hub's cache, and the hub cannot be reached "
        f"({type(error).__name__}). Check the network, set HF_HOME to a cache that holds the files, or name a local "
        "folder instead."
    )


def _is_offline() -> bool:
    from huggingface_hub import constants

    return bool(constants.HF_HUB_OFFLINE)
