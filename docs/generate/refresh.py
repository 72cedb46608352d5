"""Makes everything again that the documentation shows of the miniatures: printed outputs, then the gallery.

.venv/bin/python docs/generate/refresh.py              everything
.venv/bin/python docs/generate/refresh.py README.md    the outputs of that page alone
.venv/bin/python docs/generate/refresh.py --check      change nothing; exit with 1 if an output is out of date

Run it when a checkpoint has been replaced. The commands are run as the pages have them; those over HTTP are sent to a
server in this process.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # so that a checkout works without being installed

from docs.generate import gallery
from docs.generate.outputs import PAGES, ROOT, find_examples, read_page, replace_outputs, run, serving


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    options = _parser().parse_args(argv)
    with serving() as address:
        outdated = sum(refresh(page, address, write=not options.check) for page in options.pages or PAGES)
    if not options.pages and not options.check:
        gallery.main([])
        print("docs/gallery: made again")
    return 1 if options.check and outdated else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="Run the commands of the documentation and renew what they print.")
    parser.add_argument("pages", nargs="*", metavar="PAGE", help=f"one of {', '.join(PAGES)}; all of them if omitted")
    parser.add_argument("--check", action="store_true", help="write nothing; exit with 1 if an output is out of date")
    return parser


def refresh(page: str, address: str, *, write: bool) -> int:
    """Run the commands of a page; the number of outputs that were out of date."""
    text = read_page(page)
    examples = find_examples(text)
    outputs = [run(example, address) for example in examples]
    outdated = sum(not example.matches(output) for example, output in zip(examples, outputs, strict=True))
    if write:
        (ROOT / page).write_text(replace_outputs(text, examples, outputs), "utf-8")
    print(f"{page}: {outdated} of {len(examples)} outputs were out of date")
    return outdated


if __name__ == "__main__":
    sys.exit(main())
