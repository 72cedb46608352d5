"""python -m router.openapi: prints the document that ``GET /openapi.json`` serves."""

from __future__ import annotations

import json
import sys

from router.app import create_app
from router.backends.base import LocalBackend
from router.config import RouterConfig
from router.openapi.document import document, operations_of


def main() -> None:
    """Print it with indents, for people and for version control."""
    app = create_app(LocalBackend({}), RouterConfig())
    json.dump(document(operations_of(app.routes)), sys.stdout, indent=2, ensure_ascii=False)
    sys.stdout.write("\n")


if __name__ == "__main__":
    main()
