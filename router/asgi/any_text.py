"""The convertor ``any`` of routes: an id that may have slashes, and whatever else."""

from __future__ import annotations

from starlette.convertors import Convertor, register_url_convertor


class AnyText(Convertor[str]):
    """Whatever follows in the URL. Starlette's own ``path`` does not match line breaks."""

    regex = "(?s:.*)"

    def convert(self, value: str) -> str:
        """As it is."""
        return value

    def to_string(self, value: str) -> str:
        """As it is."""
        return value


def register() -> None:
    """Let paths of routes name it, as ``/v1/models/{id:any}``."""
    register_url_convertor("any", AnyText())
