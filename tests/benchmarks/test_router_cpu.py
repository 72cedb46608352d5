"""The benchmark of the router's CPU time sends what it says, to either of two trees."""

from __future__ import annotations

import json
from pathlib import Path

import anyio
import pytest

from benchmarks import router_cpu
from router.chat.request import parse_chat
from router.config import RouterConfig
from router.images import read_image
from vlm.image.limits import ImageLimits


@pytest.mark.parametrize("kib", [50, 100])
def test_the_image_has_the_size_that_was_asked_for(kib: int) -> None:
    [reference] = parse_chat(router_cpu.body_of(kib), RouterConfig()).images
    image = read_image(reference.url, ImageLimits(), reference.param)
    assert image.startswith(b"\xff\xd8")
    assert len(image) == pytest.approx(kib * 1024, rel=0.05)


def test_no_image_at_all() -> None:
    assert len(json.loads(router_cpu.body_of(0))["messages"][0]["content"]) == 1


def test_a_tree_against_itself(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(router_cpu, "WARM_UP", 1)
    root = Path(router_cpu.__file__).parent.parent
    assert router_cpu.main(["--against", str(root), "--requests", "2", "--rounds", "1", "--kib", "1"]) == 0
    other, this, ratio = capfd.readouterr().out.splitlines()
    assert (other.split()[0], this.split()[0], ratio.split()[0]) == ("other", "this", "ratio")
    assert float(ratio.split()[1]) > 0


def test_an_answer_that_is_an_error_ends_the_measurement() -> None:
    async def refusing(scope: object, receive: object, send: router_cpu.Send) -> None:
        await send({"type": "http.response.start", "status": 503})

    with pytest.raises(SystemExit, match="503"):
        anyio.run(router_cpu.ask, refusing, b"{}")
