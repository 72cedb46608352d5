"""LitServe around transformers' ``generate``: ``python -m benchmarks.peers.lit --folder FOLDER --port PORT``.

As LitServe's documentation has one write it: batches of up to 32 requests, for which it waits 5 ms.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import Any

import litserve

from benchmarks.peers.captions import Captions, Setting, call_this_process, opened, parser, setting_of


class Api(litserve.LitAPI):
    """LitServe calls these in its worker process, one after the other; it finds their parameters by name."""

    def __init__(self, setting: Setting, **options: Any) -> None:
        super().__init__(**options)
        self._setting = setting

    def setup(self, device: str) -> None:  # noqa: ARG002
        call_this_process("replica")
        self._captions = Captions(self._setting)

    def decode_request(self, request: dict[str, str]) -> Any:
        return opened(base64.b64decode(request["image"]))

    def batch(self, inputs: list[Any]) -> list[Any]:
        return inputs

    def predict(self, x: list[Any]) -> list[str]:
        return self._captions.of_decoded(x)

    def unbatch(self, output: list[str]) -> list[str]:
        return output

    def encode_response(self, output: str) -> dict[str, str]:
        return {"text": output}


def main(arguments: Sequence[str] | None = None) -> None:
    """Serve until interrupted."""
    options = _parser().parse_args(arguments)
    api = Api(setting_of(options), max_batch_size=options.batch, batch_timeout=options.wait_ms / 1000)
    server = litserve.LitServer(api, accelerator="cpu", workers_per_device=1)
    server.run(host="127.0.0.1", port=options.port, generate_client_file=False, log_level="warning")


def _parser() -> Any:
    options = parser("python -m benchmarks.peers.lit")
    options.add_argument("--port", type=int, required=True)
    options.add_argument("--batch", type=int, default=32)
    options.add_argument("--wait_ms", type=float, default=5.0)
    return options


if __name__ == "__main__":
    main()
