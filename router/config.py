"""The router's settings: one frozen object, read once when the process starts."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints

from serve_args import parse_args
from vlm.image.limits import ImageLimits

_LARGEST = ImageLimits()
_PRICE = re.compile(r"\d{1,9}(\.\d{1,9})?")


def _price(value: str) -> str:
    if not _PRICE.fullmatch(value):
        raise ValueError('must be a decimal string in US dollars, as "0.094"')
    return value


Count = Annotated[int, Field(gt=0)]
Seconds = Annotated[float, Field(gt=0)]
Name = Annotated[str, StringConstraints(min_length=1)]
Price = Annotated[str, AfterValidator(_price)]


class RouterConfig(BaseModel):
    """What the router allows, how long it waits, and what it reports about its models.

    Attributes:
        max_body_bytes: Largest request body in bytes, above 0; an image in base64 takes 4/3 of its size.
        max_total_body_bytes: Bytes of all request bodies together that one process holds, above 0, from their arrival
            to the end of their answers. The first 64 KiB of each body are not counted, since ``max_open_bodies`` and
            ``max_requests`` bound them.
        body_timeout_s: Longest time in seconds that a body may take to arrive, above 0.
        min_body_bytes_per_s: Slowest pace of a body, above 0: every ten seconds must bring ten times as much.
        max_head_bytes: Largest request line and headers in bytes, above 0, except that one read from the network (up to
            256 KiB) is always accepted.
        head_timeout_s: Longest time in seconds for them to arrive, above 0, and for the first byte of a connection.
        max_open_bodies: Number of requests whose bodies one process waits for at a time, above 0. They are only
            connections and do not occupy the router.
        max_requests: Number of requests that one process serves at a time, above 0. Must be below the places of the
            deployment ``Router`` (``max_ongoing_requests`` times its replicas), so that a health check always finds
            one.
        allowed_hosts: Values of the header ``Host``, in lower case and without a port, that are accepted on a loopback
            address beside ``127.0.0.1``, ``localhost`` and ``[::1]``; ``*`` accepts all.
        max_image_bytes: Largest encoded image in bytes, from 1 to the limit of
            :class:`~vlm.image.limits.ImageLimits`, which every model applies too.
        max_image_pixels: Largest image in pixels (width times height), likewise.
        min_image_side: Shortest side of an image in pixels, above 0.
        max_prompt_chars: Longest text of one request in characters, above 0.
        request_timeout_s: Deadline of a request in seconds from its first byte to the end of its answer, above 0.
        keep_alive_s: Longest silence of a stream in seconds, above 0: then a comment is sent, so that nothing between
            here and the client closes the connection.
        required_models: Names of the models that must be able to answer before ``/readyz`` reports ready.
        system_fingerprint: Reported in every answer; None if the operator does not name a build.
        drop_params: Ignore request fields that cannot be honoured instead of refusing the request, where the request
            does not say: many chat interfaces cannot send ``drop_params`` themselves.
        default_model: The model that answers to the name ``default`` as well; None if there is none.
        prices: US dollars for 1,000 images by name of the model, as decimal strings (``{"my-model": "0.094"}``):
            reported by ``/v1/models``, with null for a model that is not listed.
        allow_unauthenticated_cluster: Whether to start on a Ray cluster that asks for no token
            (:mod:`serve_args.cluster_auth`).
    """

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, allow_inf_nan=False)

    max_body_bytes: Count = 30 * 1024 * 1024
    max_total_body_bytes: Count = 256 * 1024 * 1024
    body_timeout_s: Seconds = 30.0
    min_body_bytes_per_s: Count = 1024
    max_head_bytes: Count = 64 * 1024
    head_timeout_s: Seconds = 20.0
    max_open_bodies: Count = 2048
    max_requests: Count = 700
    allowed_hosts: tuple[Name, ...] = ()
    max_image_bytes: Annotated[Count, Field(le=_LARGEST.max_bytes)] = 20 * 1024 * 1024
    max_image_pixels: Annotated[Count, Field(le=_LARGEST.max_pixels)] = 40_000_000
    min_image_side: Count = 1
    max_prompt_chars: Count = 32_768
    request_timeout_s: Seconds = 120.0
    keep_alive_s: Seconds = 15.0
    required_models: tuple[Name, ...] = ()
    system_fingerprint: str | None = None
    drop_params: bool = False
    default_model: Name | None = None
    prices: Mapping[Name, Price] = Field(default_factory=dict)
    allow_unauthenticated_cluster: bool = False

    @classmethod
    def from_args(cls, args: Mapping[str, Any]) -> Self:
        """Read the ``args`` of a Serve application, or any mapping that came from YAML.

        Raises:
            ConfigError: A key is unknown or a value is not allowed; the message names the key.
        """
        return parse_args(cls, args)

    @property
    def image_limits(self) -> ImageLimits:
        """The limits of one image."""
        return ImageLimits(self.max_image_bytes, self.max_image_pixels, self.min_image_side)
