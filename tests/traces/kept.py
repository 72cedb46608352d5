"""A recorder that keeps spans, and what is asked of them."""

from __future__ import annotations

from traces.span import Span


class Kept:
    """Keeps all spans in the order in which they ended."""

    def __init__(self) -> None:
        self.spans: list[Span] = []
        self.stopped = False

    def put(self, span: Span) -> None:
        self.spans.append(span)

    def stop(self) -> None:
        self.stopped = True

    @property
    def names(self) -> list[str]:
        return [span.name for span in self.spans]

    def all_of(self, name: str) -> list[Span]:
        return [span for span in self.spans if span.name == name]

    def one(self, name: str) -> Span:
        (span,) = self.all_of(name)
        return span

    def tree(self) -> dict[str, str | None]:
        """The name of each span's parent, by the span's name; None where it is of another process."""
        by_id = {span.context.span_id: span.name for span in self.spans}
        return {span.name: None if span.parent is None else by_id.get(span.parent.span_id) for span in self.spans}
