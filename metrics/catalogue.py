"""Every metric of the system, in one place: dashboards, alerts and documentation name these and no others.

Labels are bounded. ``model`` is the name of a deployed model, ``other`` stands for whatever clients call one;
``outcome``, ``error``, ``reason`` and ``kind`` are words of our own. Times are in seconds, as Prometheus has them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Kind = Literal["counter", "gauge", "histogram"]

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0)
STEPS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0)


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric.

    Attributes:
        name: As Prometheus shows it; Ray puts ``ray_`` before it.
        kind: ``counter``, ``gauge`` or ``histogram``.
        help: What it measures, and its unit.
        labels: Names of its labels.
        buckets: Upper bounds of a histogram's buckets.
    """

    name: str
    kind: Kind
    help: str
    labels: tuple[str, ...] = ("model",)
    buckets: tuple[float, ...] = ()


# The router: one request after the other.

REQUESTS = Metric(
    "gigarouter_requests_total",
    "counter",
    "Requests that have ended. outcome: completed, failed or abandoned by the client; error: the code of the error.",
    ("model", "outcome", "error"),
)
DURATION = Metric(
    "gigarouter_request_duration_seconds",
    "histogram",
    "From when a request that was answered had arrived, with its body, to the end of its answer.",
    buckets=SECONDS,
)
FIRST_TOKEN = Metric(
    "gigarouter_time_to_first_token_seconds",
    "histogram",
    "From when a streamed request had arrived, with its body, to the first part of its answer.",
    buckets=SECONDS,
)
PER_TOKEN = Metric(
    "gigarouter_time_per_output_token_seconds",
    "histogram",
    "Between two tokens of an answer that streams, on average from its first part to its last.",
    buckets=STEPS,
)
QUEUE_TIME = Metric(
    "gigarouter_queue_time_seconds",
    "histogram",
    "In the engine, from when a request was prepared until it first ran.",
    buckets=SECONDS,
)
PREPARE_TIME = Metric(
    "gigarouter_prepare_time_seconds",
    "histogram",
    "In the engine, to decode and resize a request's images and to read its prompt.",
    buckets=SECONDS,
)
TOKENS = Metric(
    "gigarouter_tokens_total",
    "counter",
    "Tokens of answered requests. kind: text and image, which were read, and generated.",
    ("model", "kind"),
)
IMAGES = Metric("gigarouter_images_total", "counter", "Images of answered requests.")

# The router: what it holds, and what it tries again.

HELD_PLACES = Metric(
    "gigarouter_held_places",
    "gauge",
    "Places of requests that are let in and not answered.",
)
RETRIES = Metric(
    "gigarouter_retries_total",
    "counter",
    "Attempts beyond the first of a request, by what made them necessary.",
    ("model", "reason"),
)
RESUMED = Metric("gigarouter_streams_resumed_total", "counter", "Streams that went on after they were cut.")
GIVEN_UP = Metric(
    "gigarouter_requests_given_up_total",
    "counter",
    "Requests that had trouble and were answered with an error, by why they were not tried again.",
    ("model", "reason"),
)

# The engine of each replica, at this moment.

ENGINE_RUNNING = Metric("gigarouter_engine_running_sequences", "gauge", "Sequences in the batch.")
ENGINE_WAITING = Metric("gigarouter_engine_waiting_sequences", "gauge", "Sequences that wait to be in the batch.")
ENGINE_REQUESTS = Metric("gigarouter_engine_requests", "gauge", "Requests that are accepted and have not ended.")
ENGINE_PLACES = Metric("gigarouter_engine_places", "gauge", "Places, by whether they are used.", ("model", "state"))
ENGINE_QUEUE = Metric("gigarouter_engine_queue_seconds", "gauge", "How long a request that came now would wait.")
KV_BLOCKS = Metric("gigarouter_engine_kv_blocks", "gauge", "Blocks of the KV cache, by state.", ("model", "state"))

# The engine of each replica, since it started.

STEPS_DONE = Metric("gigarouter_engine_steps_total", "counter", "Steps in which the batch generated tokens.")
ROWS_DONE = Metric("gigarouter_engine_rows_total", "counter", "Rows of all these steps: over steps, the mean batch.")
PREEMPTIONS = Metric("gigarouter_engine_preemptions_total", "counter", "Sequences set back for want of KV cache.")
IMAGES_ENCODED = Metric("gigarouter_engine_images_encoded_total", "counter", "Images that were encoded.")
IMAGE_HITS = Metric("gigarouter_engine_image_hits_total", "counter", "Images whose encoding was in the cache.")

CATALOGUE: tuple[Metric, ...] = (
    REQUESTS, DURATION, FIRST_TOKEN, PER_TOKEN, QUEUE_TIME, PREPARE_TIME, TOKENS, IMAGES, HELD_PLACES, RETRIES,
    RESUMED, GIVEN_UP, ENGINE_RUNNING, ENGINE_WAITING, ENGINE_REQUESTS, ENGINE_PLACES, ENGINE_QUEUE, KV_BLOCKS,
    STEPS_DONE, ROWS_DONE, PREEMPTIONS, IMAGES_ENCODED, IMAGE_HITS,
)  # fmt: skip
"""All of them."""
