"""What is accepted of an image. The router and every model apply the same limits."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ImageLimits:
    """Limits on an image, all of them checked before a pixel is decoded.

    Attributes:
        max_bytes: Largest file in bytes.
        max_pixels: Largest area in pixels. A photo of 40 megapixels is larger than any model reads.
        min_side: Shortest side in pixels.
        max_side: Longest side in pixels. Decoders and resizing hold memory for each row and each column, so that an
            area alone allows an image of one column with gigabytes of overhead. WebP ends at 16,383.
        max_scans: Largest number of scans of a JPEG. Each scan is a pass over all pixels, however few bytes it has.
            Encoders write up to 10 for colour (libjpeg), up to about 16 with optimised scripts (mozjpeg), and 18 for
            CMYK (libjpeg).
        max_parts: Largest number of chunks, segments or blocks within a file, each of which takes a step in Python.
            A GIF of 20 MiB has 82,242 blocks, if they are full; other formats have a few thousand at most.
    """

    max_bytes: int = 20 * 1024 * 1024
    max_pixels: int = 40_000_000
    min_side: int = 1
    max_side: int = 16_384
    max_scans: int = 32
    max_parts: int = 100_000
