"""The engine's settings, and its counters at one moment."""

from __future__ import annotations

from dataclasses import dataclass, field, fields

from vlm.errors import ConfigError


def _setting(default: int, minimum: int, maximum: int | None = None) -> int:
    """A field with its smallest and its largest allowed value."""
    number: int = field(default=default, metadata={"minimum": minimum, "maximum": maximum})
    return number


@dataclass(frozen=True, slots=True)
class EngineConfig:
    """The engine's settings: the single statement of their names, defaults and minima.

    Attributes:
        max_batch: Maximum number of sequences that run at once; fewer if ``cache_bytes`` holds fewer. A beam search
            counts as one sequence.
        max_waiting: Number of places for requests that wait beyond those; one for which there is no place is refused
            with Overloaded. See :mod:`vlm.engine.places`.
        caller_share: Percentage of the places that one caller may hold of those that no other caller holds, so that the
            next one finds a place. 100 leaves none to them; use it where all requests are of one caller and
            ``max_waiting`` is so small that the share would leave the batch unfilled.
        slot_reserve: Percentage of the ``max_batch`` slots that one caller leaves to others while there are any, and
            that batches leave to everything else: so that the next one starts at once. It is also what the answers of
            one are slowed down by another at most, where each row of a step takes time. See :mod:`vlm.engine.reserve`.
        max_prefill: Maximum number of sequences that start in one step. An image that is cut into crops counts as many
            times unless it has been encoded before; the first sequence starts in any case.
        cache_bytes: Bytes for keys and values, cross attention included. A beam search that could outgrow them
            generates fewer tokens.
        encoder_cache_bytes: Bytes for encoded images, kept for the next question about the same image; 0 keeps none.
        workspace_bytes: Bytes of a GPU for what comes and goes: activations, images on their way, CUDA graphs. They are
            only counted, where it is asked whether an engine fits into a part of a GPU (:mod:`vlm.engine.gpu_share`).
            Florence-2 was seen to take 1.4 GiB, and BLIP 0.2 GiB.
        processor_cache_bytes: Bytes for decoded and resized images, kept likewise.
        prepare_threads: Threads that prepare requests with several generations, a long text or a large image file, and
            that decode and resize images if ``decode_processes`` is 0.
        decode_processes: Processes that decode and resize images, of about 35 MB each. If there are several, one is
            left to small images. 0 decodes in threads of this process, which cannot be stopped: only for images whose
            origin is known.
        decode_timeout_s: Seconds after which a decoding process is killed and its image refused.
        decode_memory_bytes: Bytes for images while processes decode and resize them; others wait. An image that takes
            more by itself is decoded when no other big one is.

    Raises:
        ConfigError: A value is below its minimum or above its maximum; ``param`` is the setting's name.
    """

    max_batch: int = _setting(64, minimum=1)
    max_waiting: int = _setting(256, minimum=0)
    caller_share: int = _setting(90, minimum=1, maximum=100)
    slot_reserve: int = _setting(25, minimum=0, maximum=99)
    max_prefill: int = _setting(8, minimum=1)
    cache_bytes: int = _setting(2 * 1024**3, minimum=1)
    encoder_cache_bytes: int = _setting(256 * 1024**2, minimum=0)
    workspace_bytes: int = _setting(1536 * 1024**2, minimum=0)
    processor_cache_bytes: int = _setting(64 * 1024**2, minimum=0)
    prepare_threads: int = _setting(4, minimum=1)
    decode_processes: int = _setting(0, minimum=0)
    decode_timeout_s: int = _setting(10, minimum=1)
    decode_memory_bytes: int = _setting(512 * 1024**2, minimum=1)

    def __post_init__(self) -> None:
        for setting in fields(self):
            value, minimum, maximum = getattr(self, setting.name), *setting.metadata.values()
            if value < minimum:
                raise ConfigError(f"{setting.name} must be at least {minimum}.", param=setting.name)
            if maximum is not None and value > maximum:
                raise ConfigError(f"{setting.name} must be at most {maximum}.", param=setting.name)

    @property
    def capacity(self) -> int:
        """Maximum number of places of an engine, and so of requests that it holds at once, running or waiting."""
        return self.max_batch + self.max_waiting


@dataclass(frozen=True, slots=True)
class EngineStats:
    """The engine's counters at one moment.

    Attributes:
        running, waiting: Sequences that are in the batch, and those that wait to be.
        max_batch: Maximum number of sequences that run at once.
        total_blocks: Blocks of the KV cache.
        used_blocks: Blocks that sequences hold.
        cached_blocks: Blocks that hold only images which no sequence uses now; they are freed when others need them.
        images_encoded: Images that the vision encoder has encoded since the start.
        image_hits: Images since the start that had been encoded before.
        accepted: Requests that have been accepted and have not ended yet, including those that are being prepared. One
            with several tasks or labels counts once here, and as one sequence for each of them above.
        used_places, total_places: Places that these requests hold, and places that there are; see
            :mod:`vlm.engine.places`.
        steps: Steps since the start in which sequences that ran got a token.
        rows: Rows of all these steps; over ``steps``, the mean size of the batch.
        preemptions: Sequences since the start that were set back because there was no block for their next token.
        queue_s: Seconds that a request which came now would wait before anything is done for it, from the places that
            wait and the measured pace; 0 if it would start at once. See :mod:`vlm.engine.load`.
    """

    running: int
    waiting: int
    max_batch: int
    total_blocks: int
    used_blocks: int
    cached_blocks: int
    images_encoded: int
    image_hits: int
    accepted: int = 0
    used_places: int = 0
    total_places: int = 0
    queue_s: float = 0.0
    steps: int = 0
    rows: int = 0
    preemptions: int = 0
