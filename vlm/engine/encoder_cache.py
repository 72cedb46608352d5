"""Features of recently encoded images, so that a second question about one costs no vision encode.

The key is a hash of the encoded bytes, which is enough because model and preprocessing are fixed within one engine. Two
files that decode to the same pixels are two entries.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence

from torch import Tensor


class EncoderCache:
    """Features by image within a budget of bytes; the least recently used are dropped first."""

    def __init__(self, budget: int) -> None:
        """``budget``: bytes of features to keep; 0 keeps none."""
        self.budget = budget
        self.used = 0
        self.hits = 0
        self.encoded = 0
        self._kept: OrderedDict[bytes, Tensor] = OrderedDict()

    def features(
        self, keys: Sequence[bytes | None], encode: Callable[[Sequence[int]], Sequence[Tensor]]
    ) -> tuple[list[Tensor], list[bool]]:
        """Features of each image, and whether they cost no encode.

        Args:
            keys: One an image; equal keys are encoded once, None is never found and never kept.
            encode: Encodes the images at the given indices of ``keys``, to features ``[tokens, width]`` each.
        """
        named = [object() if key is None else key for key in keys]
        found = {key: self._kept[key] for key in named if isinstance(key, bytes) and key in self._kept}
        first = {key: index for index, key in reversed(list(enumerate(named))) if key not in found}
        missing = sorted(first.values())
        new = dict(zip((named[index] for index in missing), encode(missing), strict=True)) if missing else {}
        there = [first.get(key) != index for index, key in enumerate(named)]
        self.hits += sum(there)
        self.encoded += len(missing)
        self._update(found, new)
        return [found[key] if isinstance(key, bytes) and key in found else new[key] for key in named], there

    def _update(self, found: Mapping[bytes, Tensor], new: Mapping[object, Tensor]) -> None:
        for key in found:
            self._kept.move_to_end(key)
        for name, features in new.items():
            if isinstance(name, bytes):
                self._keep(name, features)

    def _keep(self, key: bytes, features: Tensor) -> None:
        size = features.numel() * features.element_size()
        if size > self.budget:
            return
        while self.used + size > self.budget:
            _, oldest = self._kept.popitem(last=False)
            self.used -= oldest.numel() * oldest.element_size()
        self._kept[key] = features.clone()  # a view would keep the features of a whole batch alive
        self.used += size
