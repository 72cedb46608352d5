"""Remakes all that is shown of the miniatures: the outputs in README.md, then the gallery.

python docs/generate/refresh.py

Run it when a checkpoint has been replaced. Commands are run as README.md has them; those over HTTP are sent to a server
in this process.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # so that a checkout works without being installed

from docs.generate import gallery
from docs.generate.outputs import README, printed, replaced, serving, shown


def main() -> None:
    """Rewrite README.md in place, and all of the gallery."""
    text = README.read_text("utf-8")
    commands = shown(text)
    with serving() as address:
        outputs = [printed(command, address) for command in commands]
    README.write_text(replaced(text, commands, outputs), "utf-8")
    changed = sum(not command.agrees(output) for command, output in zip(commands, outputs, strict=True))
    print(f"README.md: {changed} of {len(commands)} outputs were old")
    gallery.main([])
    print("docs/gallery/README.md and examples/gallery: made again")


if __name__ == "__main__":
    main()
