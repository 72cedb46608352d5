"""Ids beyond the vocabulary: a step that gives a coordinate or a size has an id as every other step has.

After the vocabulary come the coordinates, then the sizes, each a pair of width and height. So an answer is one list of
ids, whatever it holds. Plain arithmetic, without tensors.
"""

from __future__ import annotations

from dataclasses import dataclass

from vlm.checkpoint.config_reader import ConfigReader


@dataclass(frozen=True, slots=True)
class LocationIds:
    """Which id stands for which bins.

    Attributes:
        vocabulary: Number of ids in the vocabulary, and so the first id of a coordinate.
        bins: Number of coordinates, evenly spaced from 0 to below 1.
        size_bins: Number of widths, and of heights.
        even_sizes: Whether sizes are evenly spaced, as in the first revision; else they are powers of two.
    """

    vocabulary: int
    bins: int
    size_bins: int
    even_sizes: bool = False

    @classmethod
    def of(cls, config: ConfigReader) -> LocationIds:
        """From the sections of config.json."""
        region = config.section("region")
        return cls(
            vocabulary=config.section("text").integer("vocab_size"),
            bins=region.integer("coord_out_dim"),
            size_bins=region.integer("size_out_dim") // 2,
            even_sizes=region.flag("even_sizes", False),
        )

    @property
    def sizes(self) -> int:
        """The first id of a size."""
        return self.vocabulary + self.bins

    def coordinate(self, token: int) -> float | None:
        """The coordinate, in [0, 1), that an id stands for, or None for another id."""
        return (token - self.vocabulary) / self.bins if self.vocabulary <= token < self.sizes else None

    def size(self, token: int) -> tuple[float, float] | None:
        """The (width, height) that an id stands for, each at most 1, or None for another id."""
        if not self.sizes <= token < self.sizes + self.size_bins**2:
            return None
        width, height = divmod(token - self.sizes, self.size_bins)
        return self._length(width), self._length(height)

    def _length(self, size_bin: int) -> float:
        if self.even_sizes:
            return size_bin / self.size_bins
        return float(2.0 ** (size_bin / (self.size_bins - 1) * 10 - 10))
