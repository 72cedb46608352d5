"""Draws figures with matplotlib: ``python -m benchmarks.http.plots FOLDER``, with their JSON as its input."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("svg")
from matplotlib import pyplot as plt  # reads the backend when it is imported

SIZE_INCHES = (5.6, 3.6)


def draw(figure: dict[str, Any], folder: Path) -> None:
    """Write one figure; see ``benchmarks.http.figures.Figure``."""
    drawn, axes = plt.subplots(figsize=SIZE_INCHES, layout="constrained")
    for line in figure["lines"]:
        axes.plot(line["x"], line["y"], marker="o", markersize=3, linewidth=1.2, label=line["label"])
    axes.set(title=figure["title"], xlabel=figure["x_label"], ylabel=figure["y_label"], ylim=(0, None))
    if figure["log"]:
        axes.set_xscale("log", base=2)
        axes.xaxis.set_major_formatter("{x:g}")
    axes.grid(alpha=0.3)
    if len(figure["lines"]) > 1:
        axes.legend(fontsize="small")
    # Without a date, and with ids that do not change, the same figure is the same file.
    drawn.savefig(folder / figure["file"], metadata={"Date": None} if figure["file"].endswith("svg") else None)
    plt.close(drawn)


def main() -> None:
    """Draw every figure of the input."""
    mpl.rcParams.update({"svg.hashsalt": "gigarouter", "svg.fonttype": "none", "font.size": 9})
    for figure in json.load(sys.stdin):
        draw(figure, Path(sys.argv[1]))


if __name__ == "__main__":
    main()
