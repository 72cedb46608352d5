"""Names formats that are not accepted, so that a refusal can say what was sent. Standard library only."""

from __future__ import annotations

HEAD_BYTES = 512
"""Bytes in which the marks of a text format are looked for: it may begin with comments and declarations."""

_BINARY: tuple[tuple[int, bytes, str], ...] = (
    (0, b"%PDF-", "a PDF document"),
    (0, b"II*\0", "a TIFF image"),
    (0, b"MM\0*", "a TIFF image"),
    (0, b"II+\0", "a TIFF image"),
    (0, b"MM\0+", "a TIFF image"),
    (4, b"ftypavif", "an AVIF image"),
    (4, b"ftypavis", "an AVIF image"),
    (4, b"ftyphei", "a HEIC image"),
    (4, b"ftyphev", "a HEIC image"),
    (4, b"ftypmif1", "a HEIC image"),
    (4, b"ftypmsf1", "a HEIC image"),
    (4, b"ftyp", "a video"),
    (0, b"\x1a\x45\xdf\xa3", "a video"),
    (0, b"\0\0\0\x0cjP  ", "a JPEG 2000 image"),
    (0, b"\xff\x4f\xff\x51", "a JPEG 2000 image"),
    (0, b"\0\0\0\x0cJXL ", "a JPEG XL image"),
    (0, b"\xff\x0a", "a JPEG XL image"),
    (0, b"8BPS", "a Photoshop file"),
    (0, b"%!PS", "a PostScript file"),
    (0, b"\0\0\1\0", "an icon (ICO)"),
    (0, b"PK\3\4", "a ZIP archive"),
    (0, b"\x1f\x8b", "compressed (gzip)"),
)
_TEXT: tuple[tuple[bytes, str], ...] = (
    (b"<svg", "an SVG image"),
    (b"<!doctype html", "a web page (HTML)"),
    (b"<html", "a web page (HTML)"),
)


def name_of(data: bytes) -> str | None:
    """What ``data`` is, as a phrase ("a PDF document"); None if it is none of the formats that people take for images.

    Only the first bytes decide, and the rest may be anything.
    """
    for at, mark, name in _BINARY:
        if data.startswith(mark, at):
            return name
    head = data[:HEAD_BYTES].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    found = ((head.find(mark), name) for mark, name in _TEXT if head.startswith(b"<"))
    return min(((at, name) for at, name in found if at >= 0), default=(0, None))[1]
