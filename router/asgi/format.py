"""What an endpoint asks of a request format: the seam at which a further route is one more folder.

A request is read in two phases, because what its images are may have to be fetched: ``parse`` checks the body and lists
the images that it references, the endpoint lets the request in by its ``demand`` and awaits the images, and ``build``
makes the request to the model. Knows no format.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from router.asgi.caller import Owner
from vlm.errors import VlmError
from vlm.types import Chunk, Completion, Priority, Request

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class ImageReference:
    """An image that a request's body refers to.

    Attributes:
        url: What the client wrote, unchecked; the id of an uploaded file if ``is_file``.
        param: Path of the field in the body, for errors.
        is_file: Whether the image is an uploaded file.
    """

    url: str
    param: str
    is_file: bool = False

    @property
    def is_downloaded(self) -> bool:
        """Whether it is neither part of the request nor an uploaded file."""
        return not self.is_file and self.scheme != "data"

    @property
    def scheme(self) -> str:
        """Of the URL, in lower case; "" for one that is too long to be any."""
        return self.url[:16].partition(":")[0].lower()


@dataclass(frozen=True, slots=True)
class Requester:
    """Whose request it is that images are loaded for.

    Attributes:
        caller: Who asks, from :func:`~router.asgi.caller.caller_of`.
        hold: Counts bytes that the request holds until it ends; raises ``Overloaded`` where there is no room for them.
        owner: Whose uploaded files the request may name, from :func:`~router.asgi.caller.owner_of`; None if nobody's.
    """

    caller: str
    hold: Callable[[int], None]
    owner: Owner | None = None


class ImageLoader(Protocol):
    """Turns references into images."""

    async def load(self, references: Sequence[ImageReference], requester: Requester) -> Sequence[bytes]:
        """The encoded image of each reference, in order. Cancelled at the deadline and when the client leaves.

        Args:
            references: What the request refers to.
            requester: Whose request it is.

        Raises:
            InvalidImage: An image cannot be loaded or breaks a limit; ``param`` is that of its reference.
            Overloaded: There is no room for more images now.
        """
        ...


@dataclass(frozen=True, slots=True)
class Demand:
    """What a request asks for, as far as is known without its images.

    Attributes:
        model: Canonical name.
        generations: Number of its generations.
        beams: Number of beams of each, where the request says it.
        priority: Whether others go first; see :class:`~vlm.types.Request`.
        images: Number of its images.
        tasks: Canonical names of its tasks, where it names them.
        max_tokens: Most tokens of each generation, where the request says it.
    """

    model: str
    generations: int = 1
    beams: int | None = None
    priority: Priority = "interactive"
    images: int = 0
    tasks: tuple[str, ...] = ()
    max_tokens: int | None = None


class ParsedRequest(Protocol):
    """A request whose images have not been loaded yet."""

    @property
    def images(self) -> Sequence[ImageReference]:
        """The images that ``build`` needs, in the order in which it takes them."""
        ...


class EventWriter(Protocol):
    """Writes the server-sent events of one answer; each method gives whole events as bytes."""

    def opening(self) -> bytes:
        """What comes first, before anything is known of the answer."""
        ...

    def events(self, chunk: Chunk) -> Iterator[bytes]:
        """The events of one chunk; those of the last chunk end the stream."""
        ...

    def failure(self, error: VlmError) -> bytes:
        """The event that ends a stream that cannot be continued."""
        ...


class BuiltRequest(Protocol):
    """A request that can be sent to a model, and the form of its answer."""

    @property
    def model(self) -> str:
        """Canonical name of the model."""
        ...

    @property
    def request(self) -> Request:
        """The request to the model."""
        ...

    @property
    def stream(self) -> bool:
        """Whether the answer goes out as events while it grows, or as one JSON object."""
        ...

    def response_json(self, completion: Completion) -> Json:
        """The body of a whole answer."""
        ...

    def event_writer(self) -> EventWriter:
        """The writer of a streamed answer."""
        ...

    def located(self, error: VlmError) -> VlmError:
        """``error`` from the model, with the path of a field of the body in place of a field of ``Request``."""
        ...


ParsedT = TypeVar("ParsedT", bound=ParsedRequest)


class Format(Protocol[ParsedT]):
    """One format of requests and answers. Both methods are CPU work only and may run in a worker thread."""

    def parse(self, body: bytes) -> ParsedT:
        """Check a request's body.

        Raises:
            InvalidRequest: With the path of the field at fault.
        """
        ...

    def demand(self, parsed: ParsedT) -> Demand:
        """What a request asks for, by which it is let in or refused before its images are loaded.

        Raises:
            InvalidRequest: It asks for more than is answered together; with the path of the field at fault.
        """
        ...

    def build(self, parsed: ParsedT, images: Sequence[bytes], request_id: str) -> BuiltRequest:
        """Make the request to the model.

        Args:
            parsed: From ``parse``.
            images: The image of each of ``parsed.images``, in order.
            request_id: The id that the answer reports.

        Raises:
            InvalidRequest, InvalidImage: With the path of the field at fault.
        """
        ...


AskedT_co = TypeVar("AskedT_co", bound=ParsedRequest, covariant=True)


class Composition(Protocol[AskedT_co]):
    """A request that several models have to do with, as long as it is answered."""

    @property
    def shown(self) -> BuiltRequest:
        """The form of its answer. All but ``stream`` is known only once a model has been asked."""
        ...

    def chunks(
        self, ask: Callable[[AskedT_co], AsyncGenerator[Chunk, None]], deadline: float
    ) -> AsyncGenerator[Chunk, None]:
        """The answer as it grows. Closing the generator gives the work of all models up.

        Args:
            ask: The answer of one model to the same request, which names no other.
            deadline: In seconds on the event loop's clock.

        Raises:
            VlmError: There is no answer; with the path of the field at fault.
        """
        ...

    def saw(self, built: BuiltRequest) -> None:
        """A request to one of the models has been made."""
        ...


class Conductor(Protocol[ParsedT]):
    """Knows which requests several models have to do with."""

    async def composition(
        self, parsed: ParsedT, request_id: str, sees: Callable[[str], bool]
    ) -> Composition[ParsedT] | None:
        """What answers the request; None where it is for the one model that it names.

        Args:
            parsed: From ``parse``.
            request_id: The id that the answer reports.
            sees: Whether the caller may ask a model of this name.

        Raises:
            VlmError: It asks for what is impossible; with the path of the field at fault.
        """
        ...
