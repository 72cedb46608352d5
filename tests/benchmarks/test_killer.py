"""The benchmark that kills replicas configures what it says, and counts."""

from __future__ import annotations

from benchmarks.killer import Seen, config_of, report


def test_the_config_has_one_model_and_its_replicas() -> None:
    config = config_of("kosmos-2", 3, {"retry_floor": 5})
    router, model = config["applications"]
    assert (router["args"]["required_models"], router["args"]["retry_floor"]) == (["kosmos-2"], 5)
    assert (model["name"], [one["num_replicas"] for one in model["deployments"]]) == ("kosmos-2", [3])


def test_the_report_counts() -> None:
    seen = Seen(streamed=2, kills=[1.0], recovered=[2.5], seconds=[0.5, 1.5])
    seen.outcomes.update({"answered": 2, "cut": 1})
    seen.errors["cut: Failed."] += 1
    lines = list(report(seen, "x tries a request again\nx goes on with a stream\n"))
    assert [line.split()[-1] for line in lines[:7]] == ["streamed)", "1", "0", "1", "0", "1", "1"]
    assert lines[-1].endswith("1 x cut: Failed.")
