"""The settings of one model's replicas: a frozen object read from the ``args`` of a Serve application.

Imports neither Ray nor torch, so that a config is checked in a fraction of a second. Whether the checkpoint, dtype and
device can be used is checked by the loader.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field, ValidatorFunctionWrapHandler, field_validator

from logs.lines import LogFormat
from serve_args import parse_args
from vlm.engine.config import EngineConfig
from vlm.errors import ConfigError

DECODE_PROCESSES = 2
"""A replica's images come from strangers, so that it decodes them in processes unless its config says 0 itself."""

WEIGHTS_CACHE_BYTES = 32 * 1024**3
"""All four published models in float32 take 17 GB, and in bfloat16 half of it."""

_REPOSITORY = Path(__file__).resolve().parents[1]
_WHEEL = Path(__file__).resolve().parent / "bundle"  # setup.py puts it into a wheel
BUNDLE = _WHEEL if _WHEEL.is_dir() else _REPOSITORY
"""Where the bundled checkpoints are, and the config that serves them."""


class ModelConfig(BaseModel):
    """What one replica loads, and how much it may use.

    Attributes:
        checkpoint: A folder (a relative one is searched for in the working directory, then beside this package), or,
            with a ``revision``, a hub id.
        revision: Commit of the hub repository; a folder has none.
        dtype, device: As :func:`vlm.loading.load` takes them.
        threads: Number of torch threads on the CPU; 0 keeps torch's own number.
        weights_cache: A folder in which the replicas of a node share the weights
            (:mod:`vlm.checkpoint.weights_cache`): an absolute path, which may begin with ``~``. By default each has a
            copy of its own.
        weights_cache_bytes: Maximum size of that folder; the models of a node may share it.
        engine: Limits and memory of the engine. ``decode_processes`` is DECODE_PROCESSES unless it is given.
        log_format: How a replica writes its log: ``text``, as Ray Serve does, or ``json``, one object a line.
        route_by_image: Whether requests about one image go to the same replica, which has it in its caches, unless that
            has much more to do than others (:mod:`deployments.affinity`). False: Serve chooses as for any request.
        allow_unauthenticated_cluster: Whether to start on a Ray cluster that asks for no token
            (:mod:`serve_args.cluster_auth`).
    """

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    checkpoint: str = Field(min_length=1)
    revision: str | None = None
    dtype: str = "auto"
    device: str = "auto"
    threads: int = Field(default=0, ge=0)
    weights_cache: str | None = None
    weights_cache_bytes: int = Field(default=WEIGHTS_CACHE_BYTES, ge=1)
    engine: EngineConfig = EngineConfig(decode_processes=DECODE_PROCESSES)
    log_format: LogFormat = "text"
    route_by_image: bool = True
    allow_unauthenticated_cluster: bool = False

    @classmethod
    def from_args(cls, args: Mapping[str, Any]) -> Self:
        """Read the ``args`` of a Serve application, or any mapping that came from YAML.

        Raises:
            ConfigError: A key is unknown or missing, or a value is impossible; the message names it.
        """
        return parse_args(cls, args)

    @field_validator("engine", mode="wrap")
    @classmethod
    def _name_the_section(cls, value: object, read: ValidatorFunctionWrapHandler) -> object:
        """The engine names its own fields; in a config they are under ``engine``."""
        if isinstance(value, Mapping):
            value = {"decode_processes": DECODE_PROCESSES, **value}
        try:
            return read(value)
        except ConfigError as error:
            raise ConfigError(f"engine.{error.message}", f"engine.{error.param}") from None

    @field_validator("weights_cache")
    @classmethod
    def _is_the_same_for_all(cls, value: str | None) -> str | None:
        """Replicas have other working directories."""
        if value is None or Path(value).expanduser().is_absolute():
            return value
        raise ConfigError(f"weights_cache must be an absolute path, or begin with ~, not {value!r}.", "weights_cache")

    @property
    def source(self) -> str:
        """The checkpoint as the loader takes it: a worker's working directory need not be the repository.

        Raises:
            ConfigError: It has a revision, but there is a folder of that name, which would be loaded in its place.
        """
        candidates = (directory / self.checkpoint for directory in (Path.cwd(), BUNDLE))
        folder = next((path for path in candidates if path.is_dir()), None)
        if folder is None:
            return self.checkpoint
        if self.revision is not None:
            raise ConfigError(
                f"checkpoint {self.checkpoint!r} has a revision, as on the hub, but there is a folder {folder}. To "
                "load the folder, leave out revision; to load from the hub, rename the folder.",
                "revision",
            )
        return str(folder)
