"""Each way in which the hub can refuse has a sentence of its own, with what to do. Nothing is fetched."""

from __future__ import annotations

from collections.abc import Callable

import httpx
import pytest
from huggingface_hub import errors

from vlm.checkpoint.files import Checkpoint
from vlm.errors import CheckpointError

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def answered(kind: type[Exception], status: int) -> Exception:
    """An error of the hub's client as after an HTTP response."""
    response = httpx.Response(status, request=httpx.Request("GET", "https://huggingface.co/org/name"))
    return kind("their own text", response=response)  # type: ignore[call-arg]  # of HfHubHTTPError and its kinds


def refusing(error: Exception) -> Callable[..., str]:
    def snapshot_download(repo_id: str, **settings: object) -> str:
        raise error

    return snapshot_download


def message(error: Exception, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr("huggingface_hub.snapshot_download", refusing(error))
    with pytest.raises(CheckpointError) as caught:
        Checkpoint.open("org/name", COMMIT)
    assert "their own text" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("kind", "status", "expected"),
    [
        (errors.GatedRepoError, 403, ("org/name is gated", "https://huggingface.co/org/name", "hf auth login")),
        (errors.RepositoryNotFoundError, 401, ("no repository org/name", "private", "hf auth login", "HF_TOKEN")),
        (errors.RevisionNotFoundError, 404, (f"org/name has no revision {COMMIT}", "/org/name/commits/main")),
        (errors.HfHubHTTPError, 500, ("cannot be reached (HfHubHTTPError)", "network", "local folder")),
    ],
)
def test_a_refusal_says_what_to_do(
    kind: type[Exception], status: int, expected: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    said = message(answered(kind, status), monkeypatch)
    assert all(part in said for part in expected), said


@pytest.mark.parametrize("offline", [True, False])
def test_offline_differs_from_a_network_that_fails(offline: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", offline)
    said = message(errors.LocalEntryNotFoundError("their own text"), monkeypatch)
    assert ("HF_HUB_OFFLINE" in said) is offline
    assert ("cannot be reached" in said) is not offline
    assert "HF_HOME" in said
