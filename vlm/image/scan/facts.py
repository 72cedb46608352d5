"""What a scan finds, and the errors that it raises."""

from __future__ import annotations

from dataclasses import dataclass

from vlm.errors import InvalidImage

FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP")

_SIDEWAYS = (5, 6, 7, 8)


@dataclass(frozen=True, slots=True)
class ImageScan:
    """What the bytes of an image say about it, without its pixels.

    Attributes:
        format: One of ``FORMATS``.
        width, height: Size in pixels as stored, before the orientation is applied.
        channels: Samples per pixel: 1 for grey and palettes, 2 for grey with alpha, 3 or 4 otherwise.
        bits: Bits of one sample.
        palette: Whether a sample is an index into a table of colours.
        has_alpha: Whether pixels may be transparent.
        interlaced: Whether the rows are stored in several passes (PNG, GIF).
        progressive: Whether a JPEG becomes sharper from scan to scan.
        scans: Passes over the pixels of a JPEG; 1 for other formats.
        held_bytes: Bytes of coefficients that a JPEG decoder must hold before it can give the first row.
        complete: Whether the file goes on to its end; if not, its pixels may be there all the same.
        frames: Images of an animation, of which only the first is decoded; not counted beyond the limit on blocks.
        orientation: EXIF orientation from 1 (upright) to 8.
        parts: Chunks, segments or blocks that were visited.
        metadata_bytes: Bytes of those parts that decoding does not need.
        file_bytes: Bytes of the whole file.
    """

    format: str
    width: int
    height: int
    channels: int = 3
    bits: int = 8
    palette: bool = False
    has_alpha: bool = False
    interlaced: bool = False
    progressive: bool = False
    scans: int = 1
    held_bytes: int = 0
    complete: bool = True
    frames: int = 1
    orientation: int = 1
    parts: int = 0
    metadata_bytes: int = 0
    file_bytes: int = 0

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) of the upright image, which is that of the decoded one."""
        return (self.height, self.width) if self.orientation in _SIDEWAYS else (self.width, self.height)


def not_an_image(name: str | None = None) -> InvalidImage:
    """The bytes are none of the accepted formats; ``name`` says what they are, where that is known."""
    if name is not None:
        accepted = f"{', '.join(FORMATS[:-1])} or {FORMATS[-1]}"
        return InvalidImage(
            f"The data is {name}, which is not supported; send the image as {accepted}.", code="invalid_image_format"
        )
    return InvalidImage(
        f"The data is not an image in a supported format ({', '.join(FORMATS)}).", code="invalid_image_format"
    )


def unsupported(kind: str, instead: str) -> InvalidImage:
    """The format is accepted, but not this variant of it."""
    return InvalidImage(f"{kind} cannot be read; {instead}.", code="invalid_image_format")


def damaged() -> InvalidImage:
    """The file is of an accepted format and broken."""
    return InvalidImage("The image is damaged or cut short: its pixels cannot be read.", code="image_parse_error")


def too_many_parts(limit: int) -> InvalidImage:
    """The file is cut into more pieces than any encoder makes."""
    return InvalidImage(
        f"The image file has more than {limit} chunks, segments or blocks; save it again without its metadata.",
        code="invalid_image",
    )
