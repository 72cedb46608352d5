"""What a scrape shows, read back."""

from __future__ import annotations

from dataclasses import dataclass

from prometheus_client.parser import text_string_to_metric_families


@dataclass(frozen=True)
class Samples:
    """Every sample, by its name and its labels."""

    found: dict[tuple[str, frozenset[tuple[str, str]]], float]

    @property
    def names(self) -> set[str]:
        return {name for name, _ in self.found}

    def value(self, name: str, **labels: str) -> float | None:
        """The sample of exactly these labels; None if there is none."""
        return self.found.get((name, frozenset(labels.items())))

    def labels(self, label: str) -> set[str]:
        """Every value of a label."""
        return {value for _, labels in self.found for name, value in labels if name == label}


def samples(exposition: bytes) -> Samples:
    families = text_string_to_metric_families(exposition.decode())
    return Samples({(one.name, frozenset(one.labels.items())): one.value for each in families for one in each.samples})
