"""Which image prefixes are evicted when blocks are needed: the idle ones, and first the least recently used."""

from __future__ import annotations

import pytest

from vlm.engine.blocks import BLOCK_SIZE, BlockPool
from vlm.engine.prefix_cache import Prefix, PrefixCache

LENGTH = BLOCK_SIZE + 1  # two blocks


def filled(*keys: bytes, blocks: int = 6) -> tuple[PrefixCache, BlockPool, list[Prefix]]:
    """A cache in which these prefixes are ready, the first being the least recently used."""
    pool = BlockPool(blocks + 1)
    cache = PrefixCache(pool)
    prefixes = [cache.add(key, LENGTH) for key in keys]
    cache.computed(prefixes)
    return cache, pool, prefixes


def kept(cache: PrefixCache) -> list[bytes]:
    return [key for key in (b"a", b"b", b"c") if cache.find(key) is not None]


def test_the_least_recently_used_goes_first_and_no_more_than_needed() -> None:
    cache, pool, (first, *_) = filled(b"a", b"b", b"c")
    cache.use(first)
    cache.begin()  # the step that used it is over
    assert cache.evict(1)
    assert kept(cache) == [b"a", b"c"]
    assert pool.free == 2


def test_the_prefix_to_keep_is_not_evicted_though_it_is_the_oldest() -> None:
    cache, _, (first, *_) = filled(b"a", b"b", b"c")
    assert cache.evict(2, keep=first)
    assert kept(cache) == [b"a", b"c"]
    assert cache.evict(4, keep=first)
    assert kept(cache) == [b"a"]
    assert not cache.evict(5, keep=first)


def test_nothing_is_evicted_where_that_would_not_be_enough() -> None:
    cache, pool, _ = filled(b"a", b"b", blocks=5)
    assert not cache.evict(6)
    assert (kept(cache), pool.free) == ([b"a", b"b"], 1)
    assert cache.evict(5)
    assert kept(cache) == []


@pytest.mark.parametrize("state", ["wanted", "shared", "not ready"])
def test_a_prefix_in_use_is_not_evicted(state: str) -> None:
    cache, pool, (first, _) = filled(b"a", b"b")
    match state:
        case "wanted":
            cache.use(first)
        case "shared":
            pool.share(first.blocks[:1])
        case _:
            first.ready = False
    assert cache.evict(4)
    assert kept(cache) == [b"a"]
    assert not cache.evict(5)


def test_only_blocks_that_no_sequence_shares_are_the_caches_own() -> None:
    cache, pool, (first, _) = filled(b"a", b"b")
    assert cache.blocks == 4
    pool.share(first.blocks[:1])
    assert cache.blocks == 3


def test_dropping_twice_gives_the_blocks_back_once() -> None:
    cache, pool, prefixes = filled(b"a")
    cache.drop(prefixes)
    cache.drop(prefixes)
    assert (pool.used, len(cache)) == (0, 0)


def test_a_prefix_without_a_key_or_without_a_cache_goes_with_its_step() -> None:
    pool = BlockPool(7)
    cache, none = PrefixCache(pool), PrefixCache(pool, keep=False)
    cache.computed([cache.add(None, LENGTH)])
    none.computed([none.add(b"a", LENGTH)])
    assert (len(cache), len(none), pool.used) == (0, 0, 0)
