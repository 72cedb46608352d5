"""How much memory decoding an image takes, from its scan."""

from __future__ import annotations

from vlm.image.scan.facts import ImageScan

_RGB = 4  # bytes of a pixel of Pillow's RGB image


def decoded_bytes(scan: ImageScan) -> int:
    """An upper estimate of the bytes that decoding, conversion to RGB, rotation and resizing hold at their peak."""
    area = scan.width * scan.height
    return 24 * area + scan.held_bytes + 2 * scan.file_bytes
