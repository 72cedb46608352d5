"""Checks that the files are there, can be read, and are the published ones. Knows no model and no hash by itself."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from vlm.checkpoint.files import Checkpoint
from vlm.checkpoint.hub import Report
from vlm.checkpoint.progress import Progress
from vlm.models.cards import PublishedFile, Release
from vlm.models.checks import Finding, some

TOKENIZER = "tokenizer.json"
_BLOCK = 16 * 1024**2
_SHA256 = re.compile(r"[0-9a-f]{64}")


def check_files(checkpoint: Checkpoint, releases: Sequence[Release], revision: str | None) -> Iterator[Finding]:
    """Check that weights and tokenizer are complete and readable, and compare them with their published hashes.

    ``revision`` is the one that the files must belong to; None accepts any.
    """
    weights = checkpoint.weight_files()
    tensors = checkpoint.tensor_names()  # raises on a file that is cut short
    yield Finding("files", "ok", f"{some([path.name for path in weights])}: {len(tensors)} tensors, all safetensors")
    if checkpoint.pickles():
        yield Finding("pickles", "ok", f"never opened: {some(checkpoint.pickles())}")
    for path in (*weights, checkpoint.folder / TOKENIZER):
        if path.is_file():
            yield _compared(path, sha256(path, checkpoint.report), revision, releases)


def sha256(path: Path, report: Report) -> str:
    """The file's SHA-256 in hexadecimal; ``report`` gets a line every few seconds."""
    digest, done, total = hashlib.sha256(), 0, path.stat().st_size
    progress = Progress(report)
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
            done += len(block)
            progress.update(f"hashing {path.name}: {done / 1e9:.1f} of {total / 1e9:.1f} GB")
    return digest.hexdigest()


def _compared(path: Path, found: str, revision: str | None, releases: Sequence[Release]) -> Finding:
    fact = f"{path.name}: {path.stat().st_size:,} bytes, sha256 {found}"
    sent = hub_sha256(path)
    if sent not in {None, found}:
        return Finding("sha256", "FAILED", f"{fact}; the hub sent {sent}. Delete the file and fetch it again.")
    known = [(release, file) for release in releases for file in release.files if file.name == path.name]
    for release, file in known:
        if file.sha256 == found:
            return Finding("sha256", "ok", f"{fact}, as published in {file.source or release.revision}")
    wanted = [file for release, file in known if release.revision == revision and not file.source]
    if wanted:
        return Finding("sha256", "FAILED", f"{fact}; {_expected(wanted[0])}. Fetch that revision again.")
    if sent:
        return Finding("sha256", "ok", f"{fact}, as the hub sent it")
    if known:
        return Finding("sha256", "skipped", f"{fact}; not one of the known published files, so perhaps a fine-tune")
    return Finding("sha256", "ok", f"{fact}; no published value known to compare with")


def _expected(file: PublishedFile) -> str:
    return f"published were {file.size:,} bytes, sha256 {file.sha256}"


def hub_sha256(path: Path) -> str | None:
    """The SHA-256 that the hub stated when the file was downloaded; None if it was not recorded.

    In the hub's cache a large file is a link to a file whose name is the hash. ``hf download --local-dir`` writes the
    hash into the second line of a text file under ``.cache/huggingface``.
    """
    if path.is_symlink():
        name = path.resolve().name
    else:
        notes = path.parent / ".cache" / "huggingface" / "download" / f"{path.name}.metadata"
        lines = notes.read_text("utf-8").splitlines() if notes.is_file() else []
        name = lines[1] if len(lines) > 1 else ""
    return name if _SHA256.fullmatch(name) else None
