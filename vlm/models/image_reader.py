"""What decodes and resizes an image for any family."""

from __future__ import annotations

from dataclasses import dataclass

from vlm.image.decode import ImageLimits, decode
from vlm.image.preprocess import ToPixels
from vlm.models.processor import ProcessedImage
from vlm.types import Cropped, EncodedImage


@dataclass(frozen=True, slots=True)
class ImageReader:
    """Decodes an image and resizes it: a :data:`~vlm.models.processor.Preprocess` that can be pickled.

    Attributes:
        pixels: Resizes the decoded image; a method of a small object, which is pickled too.
        limits: What is accepted of an image.
    """

    pixels: ToPixels
    limits: ImageLimits

    def __call__(self, image: EncodedImage) -> ProcessedImage:
        """Decode and resize. Raises InvalidImage."""
        if isinstance(image, Cropped):
            whole = decode(image.image, self.limits)
            decoded = whole.crop(image.box.pixels(whole.size))
        else:
            decoded = decode(image, self.limits)
        return ProcessedImage(self.pixels(decoded), decoded.size)
