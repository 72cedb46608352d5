"""What decodes and resizes an image for a family that reads it whole."""

from __future__ import annotations

from dataclasses import dataclass

from vlm.image.decode import ImageLimits, decode
from vlm.image.preprocess import ImagePreprocessor
from vlm.models.processor import ProcessedImage


@dataclass(frozen=True, slots=True)
class ImageReader:
    """Decodes an image and resizes it: a :data:`~vlm.models.processor.Preprocess` that can be pickled."""

    images: ImagePreprocessor
    limits: ImageLimits

    def __call__(self, image: bytes) -> ProcessedImage:
        """Decode and resize. Raises InvalidImage."""
        decoded = decode(image, self.limits)
        return ProcessedImage(self.images.pixels(decoded), decoded.size)
