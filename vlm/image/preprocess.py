"""Resizes images, and says which number a vision encoder reads for each of their bytes. numpy and PIL only.

Owns the settings of ``preprocessor_config.json`` and their meaning, bit for bit as transformers' PIL backend computes
them. Does not know where an image comes from, nor which model reads the result.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from PIL import Image

from vlm.checkpoint.files import Checkpoint
from vlm.errors import CheckpointError

Array = np.ndarray[tuple[int, ...], np.dtype[np.float32]]
Bytes = np.ndarray[tuple[int, ...], np.dtype[np.uint8]]
ToPixels = Callable[[Image.Image], Bytes]
"""Makes uint8 ``[3, height, width]`` of an upright RGB image."""
Channels = tuple[float, float, float]

_CLIP_MEAN: Channels = (0.48145466, 0.4578275, 0.40821073)
_CLIP_STD: Channels = (0.26862954, 0.26130258, 0.27577711)

_READ = {"size", "resample", "do_resize", "do_rescale", "rescale_factor", "do_normalize", "image_mean", "image_std",
         "do_center_crop", "crop_size", "use_square_size"}  # fmt: skip
_WITHOUT_EFFECT = {
    # bookkeeping
    "image_processor_type", "feature_extractor_type", "processor_class", "_processor_class", "auto_map", "device",
    "_valid_processor_keys", "data_format", "input_data_format", "return_tensors", "disable_grouping",
    # the image is RGB already, and every image has the same size after resizing
    "do_convert_rgb", "default_to_square", "size_divisor",
    # read by the model family
    "image_seq_length",
}  # fmt: skip


@dataclass(frozen=True)
class ImagePreprocessor:
    """Resizes an image to ``height`` x ``width``, whatever its aspect ratio, and knows how to normalise it.

    Attributes:
        height, width: Size of the result in pixels.
        resample: The filter of the resizing.
        rescale: The factor by which the bytes 0..255 are multiplied, or None to leave them.
        mean, std: For each channel, the number subtracted after rescaling, and the one then divided by.
    """

    height: int
    width: int
    resample: Image.Resampling
    rescale: float | None
    mean: Channels
    std: Channels

    @classmethod
    def from_checkpoint(cls, checkpoint: Checkpoint) -> ImagePreprocessor:
        """Read the settings of CLIPImageProcessor or BlipImageProcessor, with transformers' defaults for the others.

        Raises:
            CheckpointError: A file is missing, or a setting is unknown or unsupported; the message names its key.
        """
        return _SettingsReader(checkpoint, image_settings(checkpoint)).preprocessor()

    def check_side(self, side: int, checkpoint: Checkpoint) -> None:
        """Check that the images are squares of ``side`` pixels, as the vision encoder expects them.

        Raises:
            CheckpointError: They are not.
        """
        if (self.height, self.width) != (side, side):
            raise CheckpointError(
                f"The image processor in {checkpoint.folder} makes {self.width}x{self.height} images, but "
                f"vision_config.image_size is {side}; correct one of them."
            )

    def pixels(self, image: Image.Image) -> Bytes:
        """An upright RGB image, resized: uint8 ``[3, height, width]``."""
        return planes(image.resize((self.width, self.height), self.resample))

    @cached_property
    def pixel_table(self) -> Array:
        """The normalised value of each of the 256 bytes in each channel, float32 ``[3, 256]``.

        A lookup is faster than computing each pixel, and makes one result on every device.
        """
        values = np.arange(256, dtype=np.float64)
        if self.rescale is not None:
            values = values * self.rescale
        mean, std = (np.array(channels, dtype=np.float32)[:, None] for channels in (self.mean, self.std))
        table: Array = (values.astype(np.float32)[None, :] - mean) / std
        return table


def planes(image: Image.Image) -> Bytes:
    """The channels of an RGB image one after the other: uint8 ``[3, height, width]``."""
    out = np.empty((3, image.height, image.width), dtype=np.uint8)
    for plane, channel in zip(out, image.split(), strict=True):  # cheaper than transposing [height, width, 3]
        plane[:] = np.asarray(channel)
    return out


def image_settings(checkpoint: Checkpoint) -> Mapping[str, Any]:
    """The image processor's settings, from ``processor_config.json`` or else from ``preprocessor_config.json``.

    Raises:
        CheckpointError: Neither file has them.
    """
    nested = (checkpoint.json("processor_config.json") or {}).get("image_processor")
    return nested if isinstance(nested, dict) else checkpoint.require_json("preprocessor_config.json")


@dataclass(frozen=True, slots=True)
class _SettingsReader:
    checkpoint: Checkpoint
    values: Mapping[str, Any]

    def preprocessor(self) -> ImagePreprocessor:
        self._refuse_unknown()
        height, width = self._square() if self._flag("use_square_size", False) else self._size("size")
        self._refuse_crop(height, width)
        if not self._flag("do_resize", True):
            raise self._fault("do_resize", "must be true: the encoder reads one fixed size")
        rescales, normalises = self._flag("do_rescale", True), self._flag("do_normalize", True)
        return ImagePreprocessor(
            height=height,
            width=width,
            resample=self._resample(),
            rescale=self._number("rescale_factor", 1 / 255) if rescales else None,
            mean=self._channels("image_mean", _CLIP_MEAN) if normalises else (0.0, 0.0, 0.0),
            std=self._channels("image_std", _CLIP_STD) if normalises else (1.0, 1.0, 1.0),
        )

    def _refuse_unknown(self) -> None:
        for key, value in self.values.items():
            if value not in (None, False) and key not in _READ | _WITHOUT_EFFECT:
                raise self._fault(key, "is a setting that is not supported here")

    def _refuse_crop(self, height: int, width: int) -> None:
        cropped_by_default = str(self.values.get("image_processor_type", "")).startswith("CLIP")
        if self._flag("do_center_crop", cropped_by_default) and self._size("crop_size") != (height, width):
            raise self._fault("crop_size", "must equal 'size': cropping is not supported")

    def _size(self, key: str) -> tuple[int, int]:
        match self.values.get(key):
            case int(side) if side > 0:
                return side, side
            case {"height": int(height), "width": int(width), **rest} if height > 0 and width > 0 and not rest:
                return height, width
        raise self._fault(key, "must be a positive number or {'height': .., 'width': ..}")

    def _square(self) -> tuple[int, int]:
        """The size in an older notation, where the shorter edge stands for both."""
        match self.values.get("size"):
            case {"shortest_edge": int(side), **rest} if side > 0 and not rest:
                return side, side
        raise self._fault("use_square_size", "goes with a 'size' of {'shortest_edge': ..} only")

    def _resample(self) -> Image.Resampling:
        value = self.values.get("resample", Image.Resampling.BICUBIC)
        try:
            return Image.Resampling(value)
        except ValueError as error:
            raise self._fault("resample", "must be one of PIL's filters, 0 to 5") from error

    def _flag(self, key: str, default: bool) -> bool:
        value = self.values.get(key, default)
        if value is not None and not isinstance(value, bool):
            raise self._fault(key, "must be true or false")
        return bool(value)

    def _number(self, key: str, default: float) -> float:
        value = self.values.get(key, default)
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise self._fault(key, "must be a number")
        return float(value)

    def _channels(self, key: str, default: Channels) -> Channels:
        match self.values.get(key, default):
            case [int() | float() as red, int() | float() as green, int() | float() as blue]:
                return float(red), float(green), float(blue)
        raise self._fault(key, "must be three numbers")

    def _fault(self, key: str, rule: str) -> CheckpointError:
        return CheckpointError(f"The image processor's {key!r} {rule} (in {self.checkpoint.folder}).")
