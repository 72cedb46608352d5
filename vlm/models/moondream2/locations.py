"""Ids beyond the vocabulary: where Moondream 2 means a place, it takes a step like any other, and the step has an id.

After the words come the coordinates, then the sizes, each a pair of width and height. So what the model has written is
one list of ids. Plain arithmetic: knows no tensors.
"""

from __future__ import annotations

from dataclasses import dataclass

from vlm.checkpoint.config_reader import ConfigReader


@dataclass(frozen=True, slots=True)
class PlaceIds:
    """Which id stands for which bins.

    Attributes:
        words: Ids of the vocabulary; those from here on are places.
        bins: Coordinates that the model can name, evenly from 0 up to 1.
        size_bins: Widths, and heights, that it can name.
        even_sizes: True where sizes are even steps too, as in the first revision; else each is a power of two.
    """

    words: int
    bins: int
    size_bins: int
    even_sizes: bool = False

    @classmethod
    def of(cls, config: ConfigReader) -> PlaceIds:
        """From config.json's sections."""
        region = config.section("region")
        return cls(
            words=config.section("text").integer("vocab_size"),
            bins=region.integer("coord_out_dim"),
            size_bins=region.integer("size_out_dim") // 2,
            even_sizes=region.flag("even_sizes", False),
        )

    @property
    def sizes(self) -> int:
        """The first id of a size."""
        return self.words + self.bins

    def coordinate(self, token: int) -> float | None:
        """What an id says: a coordinate in [0, 1), or None where it is no coordinate."""
        return (token - self.words) / self.bins if self.words <= token < self.sizes else None

    def size(self, token: int) -> tuple[float, float] | None:
        """(width, height), each above 0 and at most 1, or None where the id is no size."""
        if not self.sizes <= token < self.sizes + self.size_bins**2:
            return None
        width, height = divmod(token - self.sizes, self.size_bins)
        return self._length(width), self._length(height)

    def _length(self, size_bin: int) -> float:
        if self.even_sizes:
            return size_bin / self.size_bins
        return float(2.0 ** (size_bin / (self.size_bins - 1) * 10 - 10))
