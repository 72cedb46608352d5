"""``gigarouter fetch``: the published files of models, into the Hugging Face hub's cache of this machine.

    gigarouter fetch florence-2-base
    HF_HOME=/models gigarouter fetch --all

A model's card names the commit; nothing else is fetched but what is served: no pickle, no code. A download that was
interrupted goes on where it stopped. Afterwards the files are compared with the hashes on the card, so that
HF_HUB_OFFLINE=1 can be set where the models run.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Iterator, Sequence

from router.suggest import did_you_mean
from vlm.errors import CheckpointError, VlmError
from vlm.loading import build_processor, find_family, open_checkpoint
from vlm.models.cards import Card, cards, cards_of
from vlm.models.checks import Finding
from vlm.verify.published_files import check_files

BAD_INPUT = 2
COMMIT = re.compile(r"[0-9a-f]{40}")


def parser(program: str = "gigarouter fetch") -> argparse.ArgumentParser:
    """What reads the arguments of a program of this name."""
    parser = argparse.ArgumentParser(
        prog=program,
        description="Download a model's published files into the hub's cache (HF_HOME) and compare their hashes.",
        epilog="Exit status: 0 all is there, 1 a failure, 2 bad input.",
    )
    parser.add_argument("models", nargs="*", metavar="model", help=f"names: {', '.join(card.name for card in known())}")
    parser.add_argument("--all", action="store_true", help="all of them")
    parser.add_argument("--revision", help="another full commit id than the card's, of one model")
    parser.add_argument("--json", action="store_true", help="print what was found as JSON, one line each")
    return parser


def main(arguments: Sequence[str] | None = None, program: str = "gigarouter fetch") -> int:
    """Fetch, print every finding, and return the exit status."""
    own = parser(program)
    options = own.parse_args(arguments)
    if bool(options.models) == options.all:
        own.error("name models, or --all")
    if options.revision and len(options.models) != 1:
        own.error("--revision belongs to one model")
    if options.revision and not COMMIT.fullmatch(options.revision):
        own.error("--revision is a full commit id, 40 hexadecimal digits: branches and tags move")
    try:
        chosen = known() if options.all else [card_of(name) for name in options.models]
    except CheckpointError as error:
        print(f"error: {error}", file=sys.stderr)
        return BAD_INPUT
    failed = False
    for card in chosen:
        for finding in fetch(card, options.revision):
            _print(card, finding, as_json=options.json)
            failed = failed or finding.state == "FAILED"
    return 1 if failed else 0


def known() -> list[Card]:
    """The models whose files can be fetched: those with a repository and a pinned revision."""
    return [card for _, card in sorted(cards().items()) if card.hugging_face_id and card.releases]


def card_of(name: str) -> Card:
    """The card of a name, an alias or a hub id.

    Raises:
        CheckpointError: There is none.
    """
    for card in known():
        if name in (card.name, card.hugging_face_id, *card.aliases):
            return card
    names = [card.name for card in known()]
    raise CheckpointError(f"There is no model {name!r}; known are {', '.join(names)}.{did_you_mean(name, names)}")


def fetch(card: Card, revision: str | None = None) -> Iterator[Finding]:
    """Download the files of a model, and compare them with what is published."""
    assert card.hugging_face_id is not None, "known() has only such cards"
    commit = revision or card.releases[0].revision
    try:
        checkpoint = open_checkpoint(card.hugging_face_id, commit, _tell)
        yield Finding("folder", "ok", str(checkpoint.folder))
        name, family = find_family(checkpoint)
        build_processor(name, family, checkpoint)  # fetches what belongs to another repository, such as a tokenizer
        releases = [release for one in cards_of(name) for release in one.releases]
        yield from check_files(checkpoint, releases, commit)
    except VlmError as error:
        yield Finding("files", "FAILED", str(error))


def _print(card: Card, finding: Finding, *, as_json: bool) -> None:
    if as_json:
        found = {"model": card.name, "check": finding.check, "state": finding.state, "detail": finding.detail}
        print(json.dumps(found), flush=True)
    else:
        print(f"{card.name:16} {finding.state:8} {finding.check:8} {finding.detail}", flush=True)


def _tell(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
