"""What is printed of comparisons; the rest runs on a cluster."""

from __future__ import annotations

from benchmarks.compare_time import line


def test_the_ratio_is_that_of_a_round() -> None:
    told = line([0.4, 0.8], [0.44, 0.88], stream=False)
    assert told == "whole     moondream-2 alone 600 ms, four compared 660 ms, ratio 1.100"
