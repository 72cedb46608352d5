"""Keys and values of images, kept by image: all questions about one read the same blocks. Pure Python.

Only for models whose image stands before the prompt and depends on nothing else. The blocks come from the same pool
as everybody's: what nobody uses goes, least recently used first, as soon as a sequence needs the room.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass, field

from vlm.engine.blocks import BlockPool, blocks_for


@dataclass(eq=False, slots=True)
class Prefix:
    """An image's positions before the prompt.

    Attributes:
        key: Of the image; an object of its own where it is not to be found again.
        length: Positions.
        blocks: What holds them; the last may be used in part.
        ready: Whether the blocks have been written.
        wanted: A sequence joins this very step, and has yet to copy from it.
    """

    key: object
    length: int
    blocks: list[int] = field(default_factory=list)
    ready: bool = False
    wanted: bool = False


class PrefixCache:
    """Prefixes that were computed lately, or are just being computed."""

    def __init__(self, pool: BlockPool, *, keep: bool = True) -> None:
        """``keep``: whether prefixes outlive the step that computes them; their blocks live on with who shares them."""
        self.hits = 0
        self._keep = keep
        self._pool = pool
        self._kept: OrderedDict[object, Prefix] = OrderedDict()

    def __len__(self) -> int:
        return len(self._kept)

    @property
    def blocks(self) -> int:
        """Blocks that nobody but this cache holds."""
        kept = tuple(self._kept.values())  # at once: another thread may ask
        return sum(self._pool.holders(block) == 1 for one in kept for block in one.blocks)

    def find(self, key: bytes | None) -> Prefix | None:
        """The prefix of that image, or None."""
        return None if key is None else self._kept.get(key)

    def add(self, key: bytes | None, length: int) -> Prefix:
        """A new prefix, to be computed in this step; the caller has checked that its blocks are free."""
        prefix = Prefix(object() if key is None else key, length, self._pool.take(blocks_for(length)))
        self._kept[prefix.key] = prefix
        return prefix

    def use(self, prefix: Prefix) -> Prefix:
        """The same, as the most recently used, for a sequence that joins this step."""
        self._kept.move_to_end(prefix.key)
        prefix.wanted = True
        return prefix

    def begin(self) -> None:
        """A new step: what the last one copied is copied."""
        for prefix in self._kept.values():
            prefix.wanted = False

    def computed(self, prefixes: Iterable[Prefix]) -> None:
        """Their blocks have been written; those that are not to be found again are forgotten."""
        for prefix in prefixes:
            prefix.ready = True
            if not self._keep or not isinstance(prefix.key, bytes):
                self.drop([prefix])

    def drop(self, prefixes: Iterable[Prefix]) -> None:
        """Forget some, as when computing them failed; sequences that share their blocks keep them."""
        for prefix in prefixes:
            if self._kept.pop(prefix.key, None) is not None:
                self._pool.give_back(prefix.blocks)

    def evict(self, count: int, keep: Prefix | None = None) -> bool:
        """Forget what nobody uses, but for ``keep``, until ``count`` blocks are free; False if that is not enough."""
        idle = [one for one in self._kept.values() if one is not keep and self._is_idle(one)]
        if self._pool.free + sum(len(one.blocks) for one in idle) < count:
            return False  # nothing is gained by forgetting some
        for prefix in idle:
            if self._pool.free >= count:
                break
            self.drop([prefix])
        return True

    def _is_idle(self, prefix: Prefix) -> bool:
        used = any(self._pool.holders(block) > 1 for block in prefix.blocks)
        return prefix.ready and not prefix.wanted and not used
