"""Whether an engine fits into its part of a GPU, counted before any memory is taken. Pure arithmetic, no tensors.

Several replicas may share a card, and none of them may take what another one counts on. A replica's part is a fraction
of the card; of that, CUDA's own context takes some outside torch's allocator, and the rest is the allocator's limit::

    fraction * card  =  CONTEXT_BYTES  +  weights  +  KV cache  +  encoded images  +  workspace  +  what is left
"""

from __future__ import annotations

from dataclasses import dataclass

from vlm.engine.blocks import MAX_BEAMS, CachePlan
from vlm.engine.config import EngineConfig
from vlm.errors import ConfigError
from vlm.models.processor import CacheSpec

CONTEXT_BYTES = 800 * 1024**2
"""What a process takes of a GPU besides torch's allocator: CUDA's context, and the code of kernels and libraries.

Measured: 0.76 GiB with torch 2.11 and CUDA 13 on an H200 (``python -m benchmarks.gpu.fraction``).
"""

GIB = 1024**3


@dataclass(frozen=True, slots=True)
class Needs:
    """What an engine takes on its device, in bytes.

    Attributes:
        weights: The model's parameters.
        cache: Keys and values, at most.
        encoder_cache: Encoded images that are kept, at most.
        workspace: All that comes and goes: activations, images on their way, CUDA graphs.
    """

    weights: int
    cache: int
    encoder_cache: int
    workspace: int

    @classmethod
    def of(cls, weights: int, spec: CacheSpec, element_size: int, config: EngineConfig) -> Needs:
        """Those of an engine with this ``config``, for a model of ``weights`` bytes.

        Raises:
            ConfigError: ``cache_bytes`` cannot hold one sequence of the longest length.
        """
        plan = CachePlan.fit(spec, element_size, config.cache_bytes, config.max_batch, MAX_BEAMS)
        return cls(weights, plan.bytes, config.encoder_cache_bytes, config.workspace_bytes)

    @property
    def total(self) -> int:
        """All of them together."""
        return self.weights + self.cache + self.encoder_cache + self.workspace

    def __str__(self) -> str:
        return (
            f"weights {_gib(self.weights)}, KV cache {_gib(self.cache)} (cache_bytes), "
            f"encoded images {_gib(self.encoder_cache)} (encoder_cache_bytes), "
            f"workspace {_gib(self.workspace)} (workspace_bytes)"
        )


@dataclass(frozen=True, slots=True)
class Share:
    """A process's part of a card.

    Attributes:
        card: Bytes of the whole card.
        fraction: The part of it, above 0 and at most 1.
    """

    card: int
    fraction: float

    @property
    def bytes(self) -> int:
        """The part in bytes."""
        return int(self.card * self.fraction)

    @property
    def allocator_bytes(self) -> int:
        """What of it is torch's allocator's."""
        return max(0, self.bytes - CONTEXT_BYTES)

    @property
    def allocator_fraction(self) -> float:
        """The same as a fraction of the card, as torch takes a limit."""
        return self.allocator_bytes / self.card

    def require(self, needs: Needs) -> None:
        """Refuse what does not fit.

        Raises:
            ConfigError: The message has all sizes, and the smallest fraction that would do.
        """
        if needs.total <= self.allocator_bytes:
            return
        least = needs.total + CONTEXT_BYTES
        raise ConfigError(
            f"The model does not fit into its part of the GPU: {self.fraction:.4g} of {_gib(self.card)} is "
            f"{_gib(self.bytes)}, and it needs {_gib(least)}: {needs}, and CUDA's own {_gib(CONTEXT_BYTES)}. "
            f"{self._advice(least)}",
            "num_gpus",
        )

    def _advice(self, least: int) -> str:
        less = "make one of the sizes in parentheses smaller"
        if least > self.card:
            return f"The whole card is too small for it: {less}."
        fraction = -(-least * 1000 // self.card) / 1000
        return f"Give it num_gpus of {fraction:.3f} or more, or {less}."


@dataclass(frozen=True, slots=True)
class Taken:
    """What a process has taken of its card, in bytes, as measured.

    Attributes:
        allocated: Tensors that are alive.
        reserved: What torch's allocator holds, with the memory of CUDA graphs and what it keeps for later.
        peak_allocated, peak_reserved: The most of each since the process started.
        limit: The most that the allocator may hold.
    """

    allocated: int
    reserved: int
    peak_allocated: int
    peak_reserved: int
    limit: int

    def __str__(self) -> str:
        return (
            f"{_gib(self.allocated)} in use, {_gib(self.reserved)} held (at most {_gib(self.peak_reserved)} since the "
            f"start), of {_gib(self.limit)}"
        )


def _gib(count: int) -> str:
    return f"{count / GIB:.2f} GiB"
