"""The router's settings: one frozen object, read once when the process starts."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cached_property
from ipaddress import ip_network
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    StringConstraints,
    Tag,
    ValidationInfo,
    field_validator,
)

from accounts.prices import ModelPrices, PriceList, TaskPrice, of_thousand
from logs.lines import LogFormat
from router.composition.auto_rules import AutoRule
from serve_args import parse_args
from traces.target import checked_target
from vlm.image.limits import ImageLimits

_LARGEST = ImageLimits()
_HOST = re.compile(r"(\*\.)?[a-z0-9_-]+(\.[a-z0-9_-]+)*|[0-9a-f:]+")
_LISTEN = re.compile(r"(\d{1,3}(?:\.\d{1,3}){3}):(\d{1,5})")
TEMPORARY_FILES = "temporary"
_FILES_URL = re.compile(TEMPORARY_FILES + r"|/[^\0]+|(s3|gs|az)://[A-Za-z0-9._-]+(/[A-Za-z0-9._/-]*)?")
_PRICE = re.compile(r"[0-9]{1,9}(\.[0-9]{1,9})?")
ENVIRONMENT = "environment"
"""In place of a URL that has a password: the variable of that name has it (:mod:`accounts.database`)."""
_DATABASE_URL = re.compile(ENVIRONMENT + r"|sqlite:////[^\0?]+|postgresql://([^\s:@/]+@)?[^\s@?]+(\?[^\s@]*)?")
_REDIS_URL = re.compile(ENVIRONMENT + r"|rediss?://[^\s@]+")


def _price(value: str) -> str:
    if not _PRICE.fullmatch(value):
        raise ValueError('must be a decimal string in US dollars, as "0.094"')
    of_thousand(value)
    return value


def _matching(pattern: re.Pattern[str], words: str) -> AfterValidator:
    """A check that a text is as ``pattern`` says; ``words`` say the same."""

    def check(value: str) -> str:
        if not pattern.fullmatch(value):
            raise ValueError(words)
        return value

    return AfterValidator(check)


def _listen(value: str) -> str:
    found = _LISTEN.fullmatch(value)
    if not found or not 0 < int(found[2]) < 65_536:
        raise ValueError("must be an IPv4 address and a port, as 127.0.0.1:8000")
    return value


def _word(value: object) -> object:
    """YAML reads on and off without quotes as true and false."""
    return {True: "on", False: "off"}[value] if isinstance(value, bool) else value


def _target(value: object) -> object:
    """YAML reads off without quotes as false."""
    return "off" if value is False else value


def _some(ports: tuple[int, ...]) -> tuple[int, ...]:
    if not ports:
        raise ValueError("must have at least one port; set image_urls to off to download nothing")
    return ports


def _network(value: str) -> str:
    try:
        ip_network(value)
    except ValueError:
        raise ValueError("must be a network such as 10.20.0.0/16, without bits of a host") from None
    return value


Count = Annotated[int, Field(gt=0)]
Seconds = Annotated[float, Field(gt=0)]
FileSeconds = Annotated[int, Field(gt=0, le=366 * 86_400)]
Name = Annotated[str, StringConstraints(min_length=1)]
Price = Annotated[str, AfterValidator(_price)]
Host = Annotated[
    str, _matching(_HOST, "must be the name of a host in lower case and ASCII, or *.name for all names below it")
]
FilesUrl = Annotated[
    str,
    _matching(
        _FILES_URL,
        "must be a folder as /srv/gigarouter/files, or s3://bucket/prefix, gs://bucket/prefix or az://container/prefix "
        "without credentials, or the word temporary",
    ),
]
Network = Annotated[str, AfterValidator(_network)]
Port = Annotated[int, Field(gt=0, lt=65_536)]
Target = Annotated[str, AfterValidator(checked_target), BeforeValidator(_target)]
Share = Annotated[float, Field(ge=0, le=1)]
Address = Annotated[str, AfterValidator(_listen)]
DatabaseUrl = Annotated[
    str,
    _matching(
        _DATABASE_URL,
        "must be sqlite:////folder/accounts.db, postgresql://user@host/name without a password, or the word "
        "environment, for the URL in the variable GIGAROUTER_DATABASE_URL",
    ),
]
RedisUrl = Annotated[
    str,
    _matching(
        _REDIS_URL,
        "must be redis://host:6379/0 without a password, or the word environment, for the URL in the variable "
        "GIGAROUTER_REDIS_URL",
    ),
]
_STRICT = ConfigDict(strict=True, extra="forbid", frozen=True, allow_inf_nan=False)


class TaskPrices(BaseModel):
    """What a task costs beside its image, in US dollars: ``each`` for 1,000 images, ``output`` for 1,000 tokens."""

    model_config = _STRICT

    each: Price = "0"
    output: Price = "0"


class PricesOfModel(BaseModel):
    """What a model costs in US dollars: for 1,000 images, for 1,000 that had been encoded before, and for tasks."""

    model_config = _STRICT

    image: Price
    cached_image: Price | None = None
    tasks: Mapping[Name, TaskPrices] = Field(default_factory=dict)


def _branch(stated: object) -> str:
    return "<mapping>" if isinstance(stated, Mapping | PricesOfModel) else "<text>"


Prices = Annotated[Annotated[Price, Tag("<text>")] | Annotated[PricesOfModel, Tag("<mapping>")], Discriminator(_branch)]


class KeyLimits(BaseModel):
    """How much a key may ask for in a minute, and at the same time; without one, as much as it likes."""

    model_config = _STRICT

    requests: Count | None = None
    images: Count | None = None
    tokens: Count | None = None
    concurrent: Count | None = None


class RouterConfig(BaseModel):
    """What the router allows, how long it waits, and what it reports about its models.

    Attributes:
        max_body_bytes: Largest request body in bytes, above 0; an image in base64 takes 4/3 of its size.
        max_total_body_bytes: Bytes of all request bodies together that one process holds, above 0, from their arrival
            to the end of their answers, with the images that were loaded for them and with answers that are longer than
            their bodies. The first 64 KiB of each are not counted, since ``max_open_bodies`` and ``max_requests`` bound
            them.
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
        allowed_origins: Values of the header ``Origin`` of web pages that may send requests (CORS), as
            ``https://app.example.com``; ``*`` allows every page. None but this server's own by default.
        max_image_bytes: Largest encoded image in bytes, from 1 to the limit of
            :class:`~vlm.image.limits.ImageLimits`, which every model applies too.
        max_image_pixels: Largest image in pixels (width times height), likewise.
        min_image_side: Shortest side of an image in pixels, above 0.
        max_prompt_chars: Longest text of one request in characters, above 0.
        image_urls: Whether images are downloaded from the web: ``on``, ``off``, or ``allowed`` for the hosts in
            ``allowed_image_hosts`` alone.
        allowed_image_hosts: Names of hosts, exact or as ``*.example.com`` for all names below it.
        allowed_image_networks: Networks that images may come from beside the public internet, as ``10.20.0.0/16``.
            Whoever may send requests can then reach every host there that answers HTTP at ``image_ports``.
        image_ports: TCP ports that images may come from.
        image_download_timeout_s: Deadline of a download in seconds, redirects included, above 0.
        max_image_downloads: Largest number of downloads at once, above 0. Their bytes are counted among those of
            ``max_total_body_bytes``.
        max_image_downloads_per_host, max_image_downloads_per_caller: The same for one host and for one caller.
        files_url: Where uploaded files are kept: the absolute path of a folder, which other users must not be able to
            enter, or an object store as ``s3://bucket/prefix``, ``gs://...`` or ``az://...``, whose credentials come
            from the environment. All replicas of the router must reach the same. ``temporary`` is a private folder
            that lasts as long as ``make serve``. None keeps no files.
        files_without_key: Whether callers that send no key of their own (:func:`~router.asgi.caller.owner_of`) may have
            files, which then belong to their address. Behind a proxy, that is one and the same for all of them.
        max_file_store_bytes: Bytes of all files together, above 0.
        max_files: Number of all files together, above 0. Each upload lists them all: 10,000 take up to half a second
            of a folder, and a second of an object store.
        max_file_bytes_per_caller, max_files_per_caller: The same for the files of one caller.
        max_file_ttl_s: Longest time in seconds that a file is kept, above 0.
        file_ttl_s: The same for a file whose upload does not say (``expires_after``), at most ``max_file_ttl_s``.
        request_timeout_s: Deadline of a request in seconds from its first byte to the end of its answer, above 0.
        keep_alive_s: Longest silence of a stream in seconds, above 0: then a comment is sent, so that nothing between
            here and the client closes the connection.
        retry_share: Calls to a model's replicas beyond one for each request, as a share of the requests of the last ten
            seconds, from 0 to 1. A request is called for again when its replica was lost, stops or has no room. The
            calls for want of room are counted apart, and may be as many again.
        retry_floor: Number of such calls in ten seconds that are allowed beyond that share, 0 or more: as many as a
            replica holds requests, so that losing one costs none of them. With both at 0, nothing is tried again.
        retry_patience_s: Longest time in seconds that a request waits for another replica, above 0: as long as one
            takes to start.
        places_per_replica: Number of generations that one replica of a model works on at once, above 0. None takes what
            the replicas of each model say, which follows from the engine's ``max_batch``. As many again may wait in the
            router and the replicas; more are refused with a 503.
        max_queue_s: Longest time in seconds that a request may be expected to wait for its turn, above 0; what would
            wait longer is refused at once, and so is what would wait beyond its deadline.
        max_held: Number of requests that wait for the first replica of a model that is scaled to zero, above 0; more
            are refused with a 503 while it starts. Each keeps its images in the router's memory.
        cold_start_s: Seconds that such a start is expected to take, above 0, until the router has seen one of the
            model: what those are told that are refused, and what the deadline of a request must leave room for.
        required_models: Names of the models without which ``/readyz`` does not report ready; if there are none, it asks
            that any model can answer.
        system_fingerprint: Reported in every answer; None if the operator does not name a build.
        drop_params: Ignore request fields that cannot be honoured instead of refusing the request, where the request
            does not say: many chat interfaces cannot send ``drop_params`` themselves.
        default_model: The model that answers to the name ``default`` as well; None if there is none.
        prices: US dollars for 1,000 images by name of the model, as decimal strings (``{"my-model": "0.094"}``), or all
            that it costs (:class:`PricesOfModel`): what accounts pay (:mod:`accounts.prices`), and what ``/v1/models``
            reports, with null for a model that is not listed.
        price_version: The operator's name of these prices.
        batch_price_percent: What a request with low priority pays of them.
        database_url: Where accounts are kept (docs/accounts.md): ``sqlite:////folder/accounts.db``,
            ``postgresql://user@host/name`` without a password, or ``environment`` for the variable
            ``GIGAROUTER_DATABASE_URL``. Then every request needs a key. None keeps no accounts.
        allow_without_keys: Whether to answer without keys where others than this machine reach the router.
        redis_url: Where several routers count limits together: ``redis://host:6379/0`` without a password, or
            ``environment`` for ``GIGAROUTER_REDIS_URL``. None counts in each router.
        outbox_folder: Folder on this machine in which a router keeps what it has not yet written to the database, so
            that nothing is lost when it is killed. None takes one below the folder for temporary files.
        accounts_patience_s: Seconds that a request waits for a database that does not answer, above 0; then it is
            refused with a 503.
        free_credit: US dollars that a new account begins with.
        key_limits: Limits of keys that have none of their own, by model, and under ``*`` for all together.
        failed_keys_per_minute: How many requests with a wrong key an address may send in a minute, above 0.
        stored_answer_s: Seconds for which the answer to a request with an ``Idempotency-Key`` is kept, above 0.
        max_stored_answer_bytes: Largest such answer in bytes, above 0.
        auto: Rules by which the model ``auto`` is chosen, the first that fits (:mod:`router.composition.auto_rules`);
            else it is the one whose card ranks it first for the task.
        listen: IPv4 address and port at which the router's process listens itself, as ``127.0.0.1:8000``; None where
            Serve's proxies do. For a system on one machine, with one replica of the router.
        log_format: How this process writes its log: ``text``, as Ray Serve does, or ``json``, one object a line.
        traces: Where traces of requests are sent (docs/traces.md): ``off``; the address of an OTLP/HTTP collector, as
            ``http://collector:4318``; ``otlp`` for the one that the standard variables name, such as
            ``OTEL_EXPORTER_OTLP_ENDPOINT``; or ``console``. The replicas are told with each request.
        trace_share: Part of the requests that are traced, from 0 to 1.
        trust_traceparent: Whether a caller whose ``traceparent`` says that it is sampled has its requests traced
            whatever ``trace_share`` says.
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
    allowed_origins: tuple[Name, ...] = ()
    max_image_bytes: Annotated[Count, Field(le=_LARGEST.max_bytes)] = 20 * 1024 * 1024
    max_image_pixels: Annotated[Count, Field(le=_LARGEST.max_pixels)] = 40_000_000
    min_image_side: Count = 1
    max_prompt_chars: Count = 32_768
    image_urls: Annotated[Literal["on", "off", "allowed"], BeforeValidator(_word)] = "on"
    allowed_image_hosts: Annotated[tuple[Host, ...], Field(validate_default=True)] = ()
    allowed_image_networks: tuple[Network, ...] = ()
    image_ports: Annotated[tuple[Port, ...], AfterValidator(_some)] = (80, 443)
    image_download_timeout_s: Seconds = 10.0
    max_image_downloads: Count = 64
    max_image_downloads_per_host: Count = 8
    max_image_downloads_per_caller: Count = 8
    files_url: FilesUrl | None = None
    files_without_key: bool = False
    max_file_store_bytes: Count = 10 * 1024**3
    max_files: Count = 10_000
    max_file_bytes_per_caller: Count = 1024**3
    max_files_per_caller: Count = 1000
    max_file_ttl_s: FileSeconds = 30 * 86_400
    file_ttl_s: Annotated[FileSeconds, Field(validate_default=True)] = 7 * 86_400
    request_timeout_s: Seconds = 120.0
    keep_alive_s: Seconds = 15.0
    retry_share: Share = 0.2
    retry_floor: Annotated[int, Field(ge=0)] = 32
    retry_patience_s: Seconds = 30.0
    places_per_replica: Count | None = None
    max_queue_s: Seconds = 10.0
    max_held: Count = 32
    cold_start_s: Seconds = 30.0
    required_models: tuple[Name, ...] = ()
    system_fingerprint: str | None = None
    drop_params: bool = False
    default_model: Name | None = None
    prices: Mapping[Name, Prices] = Field(default_factory=dict)
    price_version: str = ""
    batch_price_percent: Annotated[int, Field(ge=0, le=100)] = 50
    database_url: DatabaseUrl | None = None
    allow_without_keys: bool = False
    redis_url: RedisUrl | None = None
    outbox_folder: Name | None = None
    accounts_patience_s: Seconds = 5.0
    free_credit: Price | None = None
    key_limits: Mapping[Name, KeyLimits] = Field(default_factory=dict)
    failed_keys_per_minute: Count = 20
    stored_answer_s: Count = 86_400
    max_stored_answer_bytes: Count = 1024 * 1024
    auto: tuple[AutoRule, ...] = ()
    listen: Address | None = None
    log_format: LogFormat = "text"
    traces: Target = "off"
    trace_share: Share = 1.0
    trust_traceparent: bool = False
    allow_unauthenticated_cluster: bool = False

    @field_validator("allowed_image_hosts")
    @classmethod
    def _hosts_are_used(cls, hosts: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
        """A list of hosts that is not used, or not there, would not do what its writer expects."""
        image_urls = info.data.get("image_urls", "on" if not hosts else "allowed")  # it may be wrong itself
        if image_urls == "allowed" and not hosts:
            raise ValueError("must have a host while image_urls is allowed")
        if image_urls != "allowed" and hosts:
            raise ValueError(f"has no effect while image_urls is {image_urls}; set image_urls to allowed")
        return hosts

    @field_validator("file_ttl_s")
    @classmethod
    def _is_allowed_itself(cls, seconds: int, info: ValidationInfo) -> int:
        if seconds > (longest := info.data.get("max_file_ttl_s", seconds)):
            raise ValueError(f"must be at most max_file_ttl_s, which is {longest}")
        return seconds

    @classmethod
    def from_args(cls, args: Mapping[str, Any]) -> Self:
        """Read the ``args`` of a Serve application, or any mapping that came from YAML.

        Raises:
            ConfigError: A key is unknown or a value is not allowed; the message names the key.
        """
        return parse_args(cls, args)

    @property
    def listen_address(self) -> tuple[str, int]:
        """Address and port of ``listen``, which must be set."""
        host, _, port = (self.listen or "").partition(":")
        return host, int(port)

    @cached_property
    def price_list(self) -> PriceList:
        """What all models cost."""
        models = {name: _prices_of(prices) for name, prices in self.prices.items()}
        return PriceList(models, self.price_version, self.batch_price_percent)

    @property
    def image_limits(self) -> ImageLimits:
        """The limits of one image."""
        return ImageLimits(self.max_image_bytes, self.max_image_pixels, self.min_image_side)


def _prices_of(stated: str | PricesOfModel) -> ModelPrices:
    whole = PricesOfModel(image=stated) if isinstance(stated, str) else stated
    image = of_thousand(whole.image)
    cached = image if whole.cached_image is None else of_thousand(whole.cached_image)
    tasks = {name: TaskPrice(of_thousand(one.each), of_thousand(one.output)) for name, one in whole.tasks.items()}
    return ModelPrices(image, cached, tasks)
