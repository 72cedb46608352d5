"""The router's settings: one frozen object, read once when the process starts. Knows nothing of where it comes from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Self, TypeGuard

from vlm.image.decode import ImageLimits


class ConfigError(ValueError):
    """A setting is unknown or has an impossible value; the message names it."""


@dataclass(frozen=True, slots=True)
class RouterConfig:
    """What the router allows and how long it waits.

    Attributes:
        max_body_bytes: Largest request body; an image in base64 takes 4/3 of its size.
        max_image_bytes, max_image_pixels, min_image_side: Limits of one image; never looser than those of
            :class:`~vlm.image.decode.ImageLimits`, which every model holds to.
        max_prompt_chars: Longest text of one request.
        request_timeout_s: Deadline of a request, from its first byte to its last answer.
        keep_alive_s: A waiting stream says so this often, so that nothing in between closes it.
        required_models: Names that must be able to answer before the router reports that it is ready.
        system_fingerprint: Reported in every answer; None where the operator does not name a build.
    """

    max_body_bytes: int = 30 * 1024 * 1024
    max_image_bytes: int = 20 * 1024 * 1024
    max_image_pixels: int = 40_000_000
    min_image_side: int = 1
    max_prompt_chars: int = 32_768
    request_timeout_s: float = 120.0
    keep_alive_s: float = 15.0
    required_models: tuple[str, ...] = ()
    system_fingerprint: str | None = None

    def __post_init__(self) -> None:
        for name in (field.name for field in fields(self) if field.type in ("int", "float")):
            _check_positive(name, getattr(self, name))
        for name in (field.name for field in fields(self) if field.type == "int"):
            _check(isinstance(getattr(self, name), int), name, "must be a whole number")
        most = ImageLimits()
        _check(self.max_image_bytes <= most.max_bytes, "max_image_bytes", f"must be at most {most.max_bytes}")
        _check(self.max_image_pixels <= most.max_pixels, "max_image_pixels", f"must be at most {most.max_pixels}")
        _check(_are_names(self.required_models), "required_models", "must be a list of model names")
        _check(
            self.system_fingerprint is None or isinstance(self.system_fingerprint, str),
            "system_fingerprint",
            "must be a string",
        )

    @classmethod
    def from_args(cls, args: Mapping[str, Any]) -> Self:
        """Read the ``args`` of a Serve application, or any mapping that came from YAML.

        Raises:
            ConfigError: A key is unknown or a value impossible.
        """
        known = [field.name for field in fields(cls)]
        for key in args:
            if key not in known:
                raise ConfigError(f"Unknown router setting {key!r}; known are: {', '.join(known)}.")
        values: dict[str, Any] = {
            key: tuple(value) if isinstance(value, list) else value for key, value in args.items()
        }
        return cls(**values)

    @property
    def image_limits(self) -> ImageLimits:
        """The limits of one image."""
        return ImageLimits(self.max_image_bytes, self.max_image_pixels, self.min_image_side)


def _check(holds: bool, name: str, rule: str) -> None:
    if not holds:
        raise ConfigError(f"Router setting {name!r} {rule}.")


def _is_number(value: object) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _check_positive(name: str, value: object) -> None:
    _check(_is_number(value) and 0 < value < float("inf"), name, "must be a number above 0")


def _are_names(value: object) -> bool:
    return isinstance(value, tuple) and all(isinstance(name, str) and name for name in value)
