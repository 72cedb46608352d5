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
        max_chunks: Largest number of chunks of a PNG or WebP, or segments of a JPEG, each of which takes a step in
            Python. Encoders write a few thousand at most: a file of 20 MiB has 20,480 chunks of 1 KiB.
        max_blocks: Largest number of blocks of a GIF. One of 20 MiB has 82,242, if they are full.
    """

    max_bytes: int = 20 * 1024 * 1024
    max_pixels: int = 40_000_000
    min_side: int = 1
    max_side: int = 16_384
    max_scans: int = 32
    max_chunks: int = 25_000
    max_blocks: int = 100_000
