"""A model on a device of its own, on a machine that has none: its passes take a device's time, and no CPU time.

All else is real: images are decoded, the engine schedules slots and rows, tokens are sampled and read. So a benchmark
shows what the system does with its requests where a model does not share its cores with the router and the client.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from deployments.app import REFUSAL_MARGIN
from deployments.config import ModelConfig
from deployments.replica import Replica

if TYPE_CHECKING:
    from torch import Tensor

    from vlm.models.base import LoadedModel, VisionLanguageModel

TIMES = "device_times"


@dataclass(frozen=True, slots=True)
class DeviceTimes:
    """How long a device takes: by default three times as long as an H100 for Kosmos-2 (docs/benchmarks.md).

    One core is then enough for everything that needs one.

    Attributes:
        step_ms: For a pass of the language model, whatever its size.
        row_ms: For each of its rows besides.
        image_ms: For each image that is encoded.
    """

    step_ms: float = 11.0
    row_ms: float = 0.14
    image_ms: float = 4.2


def timed(model: VisionLanguageModel, times: DeviceTimes) -> VisionLanguageModel:
    """The model with passes that are waited for. Its answers mean nothing, and have no end but their limit."""
    encode = model.encode_images
    known: list[Tensor] = []

    def encode_images(pixels: Sequence[Tensor]) -> Sequence[Tensor]:
        """Of the first image the features, for its time and that of each other one."""
        if not known:
            known.extend(encode(pixels[:1]))
        time.sleep(len(pixels) * times.image_ms / 1000)
        return known * len(pixels)

    def forward(embeddings: Tensor, attention: object) -> Tensor:  # noqa: ARG001  the protocol's
        """The embeddings as they are, after the time of a pass."""
        time.sleep((times.step_ms + len(embeddings) * times.row_ms) / 1000)
        return embeddings

    changed: Any = model  # its methods are replaced on this one object
    changed.encode_images, changed.forward, changed.eos_token_ids = encode_images, forward, frozenset()
    return model


class TimedReplica(Replica):
    """A replica of a model that is :func:`timed`."""

    def __init__(self, config: ModelConfig, times: DeviceTimes) -> None:
        self._times = times
        super().__init__(config)

    def _load_model(self, config: ModelConfig) -> LoadedModel:
        """The checkpoint with its passes replaced."""
        loaded = super()._load_model(config)
        return replace(loaded, model=timed(loaded.model, self._times))


def build(args: Mapping[str, Any]) -> Any:
    """What a Serve config names: ``args`` are those of a model, and :class:`DeviceTimes` by the name of TIMES."""
    from ray import serve

    config = ModelConfig.from_args({name: value for name, value in args.items() if name != TIMES})
    limit = config.engine.capacity + REFUSAL_MARGIN
    deployment = serve.deployment(name="Replica", max_ongoing_requests=limit, max_queued_requests=limit)
    return deployment(TimedReplica).bind(config, DeviceTimes(**args.get(TIMES, {})))


def on_a_device(config: Mapping[str, Any], model: str, times: DeviceTimes) -> dict[str, Any]:
    """A Serve config in which this model is on a device of its own."""
    applications = [
        {**one, "import_path": f"{__name__}:build", "args": {**one["args"], TIMES: asdict(times)}}
        if one["name"] == model
        else one
        for one in config["applications"]
    ]
    return {**config, "applications": applications}
