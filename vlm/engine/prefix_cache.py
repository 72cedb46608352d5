"""Keys and values of images, by image: all questions about one image read the same blocks. Pure Python.

Only for models that put the image before the prompt, where its positions depend on nothing else. The blocks come from
the same pool as those of sequences: unused prefixes are evicted, least recently used first, when a sequence needs
their blocks.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass, field

from vlm.engine.blocks import BlockPool, blocks_for


@dataclass(eq=False, slots=True)
class Prefix:
    """An image's positions ``[0, length)`` before the prompt.

    Attributes:
        key: Hash of the image; a unique object if it is not to be found again.
        length: Number of positions.
        blocks: The blocks that hold them; the last may be filled in part.
        ready: Whether the blocks have been written.
        wanted: Whether a sequence that starts in this step has yet to copy from it.
    """

    key: object
    length: int
    blocks: list[int] = field(default_factory=list)
    ready: bool = False
    wanted: bool = False


class PrefixCache:
    """Prefixes that have been computed recently, or are computed in this step."""

    def __init__(self, pool: BlockPool, *, keep: bool = True) -> None:
        """``keep``: whether prefixes stay after the step that computes them; sequences that share blocks keep those."""
        self.hits = 0
        self._keep = keep
        self._pool = pool
        self._kept: OrderedDict[object, Prefix] = OrderedDict()

    def __len__(self) -> int:
        return len(self._kept)

    @property
    def blocks(self) -> int:
        """Number of blocks that only this cache holds."""
        kept = tuple(self._kept.values())  # a copy, because another thread may read this
        return sum(self._pool.holders(block) == 1 for one in kept for block in one.blocks)

    def find(self, key: bytes | None) -> Prefix | None:
        """The prefix of the image with this hash, or None."""
        return None if key is None else self._kept.get(key)

    def add(self, key: bytes | None, length: int) -> Prefix:
        """Add a prefix that this step computes; the caller has checked that there are enough free blocks."""
        prefix = Prefix(object() if key is None else key, length, self._pool.take(blocks_for(length)))
        self._kept[prefix.key] = prefix
        return prefix

    def use(self, prefix: Prefix) -> Prefix:
        """Mark a prefix as most recently used, by a sequence that starts in this step; returns it."""
        self._kept.move_to_end(prefix.key)
        prefix.wanted = True
        return prefix

    def begin(self) -> None:
        """Begin a step: the copies of the last one have been made."""
        for prefix in self._kept.values():
            prefix.wanted = False

    def computed(self, prefixes: Iterable[Prefix]) -> None:
        """Note that their blocks have been written; drops those that are not to be found again."""
        for prefix in prefixes:
            prefix.ready = True
            if not self._keep or not isinstance(prefix.key, bytes):
                self.drop([prefix])

    def drop(self, prefixes: Iterable[Prefix]) -> None:
        """Forget prefixes, for instance because computing them failed; sequences keep the blocks that they share."""
        for prefix in prefixes:
            if self._kept.pop(prefix.key, None) is not None:
                self._pool.give_back(prefix.blocks)

    def evict(self, count: int, keep: Prefix | None = None) -> bool:
        """Drop unused prefixes other than ``keep`` until ``count`` blocks are free; False if that is not possible."""
        idle = [one for one in self._kept.values() if one is not keep and self._is_idle(one)]
        if self._pool.free + sum(len(one.blocks) for one in idle) < count:
            return False  # dropping them would gain nothing
        for prefix in idle:
            if self._pool.free >= count:
                break
            self.drop([prefix])
        return True

    def _is_idle(self, prefix: Prefix) -> bool:
        used = any(self._pool.holders(block) > 1 for block in prefix.blocks)
        return prefix.ready and not prefix.wanted and not used
