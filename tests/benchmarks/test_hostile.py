"""The attacks of the benchmark are what they claim to be, and what is watched is found."""

from __future__ import annotations

import json
import os
import socket
import sys
import threading
from collections import Counter
from collections.abc import Iterator

import pytest

from benchmarks.hostile import attacks, watch
from router.chat.request import parse_chat
from router.config import RouterConfig
from router.images import read_image
from tests.hostile_clients import received
from tests.images import plain
from vlm.image.limits import ImageLimits


def images_of(parts: list[bytes]) -> bytes:
    [reference] = parse_chat(b"".join(parts[1:]), RouterConfig()).images
    return read_image(reference.url, ImageLimits(), reference.param)


def test_each_question_has_another_file_of_the_same_image() -> None:
    image = plain(16, 16)
    sent = [images_of(attacks.question("a-model", image)) for _ in range(3)]
    assert all(one.startswith(image) for one in sent)
    assert len(set(sent)) == 3


def test_a_whole_request_announces_its_length() -> None:
    head, *body = attacks.question("a-model", plain(16, 16))
    assert f"content-length: {len(b''.join(body))}\r\n".encode() in head
    assert json.loads(b"".join(body))["model"] == "a-model"


@pytest.fixture
def server() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as opened:
        yield opened


def test_clients_that_leave_are_told_from_those_that_are_answered(server: socket.socket) -> None:
    def serve() -> None:
        for answer in (b"HTTP/1.1 400 Bad Request\r\n\r\n", None):
            client, _ = server.accept()
            with client:
                client.recv(1 << 16)
                client.sendall(answer) if answer else received(client)  # until it leaves

    thread = threading.Thread(target=serve)
    thread.start()
    port = server.getsockname()[1]
    outcome = Counter(attacks._send(port, [b"request"], 0.2) for _ in range(2))
    thread.join()
    assert outcome == {"400": 1, "left": 1}


@pytest.mark.skipif(sys.platform != "linux", reason="looks processes up in /proc")
def test_a_process_is_found_by_the_port_that_it_listens_on(server: socket.socket) -> None:
    port = server.getsockname()[1]
    assert watch._listens(os.getpid(), port)
    assert not watch._listens(os.getppid(), port)
    server.close()
    assert not watch._listens(os.getpid(), port)
