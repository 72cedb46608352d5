"""The client times answers of any form, and the load is what it says, against a server whose answers are made up."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from itertools import count

import pytest

from benchmarks.http.client import Answered, Connections, Sent
from benchmarks.http.load import Load, _between_answers, arriving, closed

Handler = Callable[[asyncio.StreamWriter], Awaitable[None]]
PLAIN = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"
EVENT = b'data: {"content":"a"}\n\n'


def chunk(data: bytes) -> bytes:
    return f"{len(data):x}\r\n".encode() + data + b"\r\n"


def asked() -> Iterator[Sent]:
    body = b"POST / HTTP/1.1\r\nContent-Length: 2\r\n\r\n", b"{}"
    return (Sent(body, number) for number in count())


@asynccontextmanager
async def server(handle: Handler) -> AsyncIterator[int]:
    ended = []

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        ended.append(asyncio.current_task())
        with suppress(ConnectionError):
            while await reader.read(1):
                await reader.readuntil(b"{}")
                await handle(writer)
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()

    running = await asyncio.start_server(connected, "127.0.0.1", 0)
    async with running:
        yield running.sockets[0].getsockname()[1]
        running.close()
        await asyncio.gather(*(one for one in ended if one is not None))


async def plainly(writer: asyncio.StreamWriter) -> None:
    writer.write(PLAIN)


def test_an_answer_with_a_length() -> None:
    async def ask() -> None:
        async with server(plainly) as port, Connections(port) as connections:
            one = await connections.ask(asked())
            assert (one.status, one.content, one.number) == (200, b"hello", 0)
            assert one.first == one.done > one.asked

    asyncio.run(ask())


def test_the_first_text_of_a_stream_is_timed_and_chunks_are_joined() -> None:
    told = asyncio.Event()

    async def stream(writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + chunk(b'data: {"content":""}\n\n'))
        await writer.drain()
        writer.write(chunk(EVENT)[:5])
        await writer.drain()
        await asyncio.sleep(0.05)
        writer.write(chunk(EVENT)[5:])
        await asyncio.sleep(0.05)
        told.set()
        writer.write(chunk(b"data: [DONE]\n\n") + chunk(b""))

    async def ask() -> None:
        async with server(stream) as port, Connections(port, streaming=True) as connections:
            one = await connections.ask(asked())
            assert told.is_set()
            assert one.asked < one.first < one.done
            assert one.content == b'data: {"content":""}\n\n' + EVENT + b"data: [DONE]\n\n"

    asyncio.run(ask())


def test_a_connection_that_breaks_is_an_answer_without_a_status() -> None:
    async def leave(writer: asyncio.StreamWriter) -> None:
        writer.write(PLAIN[:10])
        await writer.drain()
        writer.close()

    async def ask() -> list[int]:
        async with server(leave) as port:
            async with Connections(port) as connections:
                first = await connections.ask(asked())
            load = await closed(port, asked(), 3, 60)
        async with Connections(port) as connections:  # nobody listens there any more
            last = await connections.ask(asked())
        return [first.status, load.answers[0].status, last.status]

    assert asyncio.run(ask()) == [0, 0, 0]


def test_clients_wait_for_their_answers_and_connections_are_used_again() -> None:
    at_once = most = 0

    async def handle(writer: asyncio.StreamWriter) -> None:
        nonlocal at_once, most
        at_once += 1
        most = max(most, at_once)
        await asyncio.sleep(0.002)
        at_once -= 1
        writer.write(PLAIN)

    async def load() -> Load:
        async with server(handle) as port:
            return await closed(port, asked(), 4, 0.2)

    done = asyncio.run(load())
    assert most == 4
    assert {one.status for one in done.answers} == {200}
    assert [one.number for one in sorted(done.answers, key=lambda one: one.asked)] == list(range(len(done.answers)))
    assert 2 * 4 <= len(done.counted) <= len(done.answers) - 4
    assert done.ended - done.began > 0
    assert done.client_cpu_s > 0


def answer(done: float) -> Answered:
    return Answered(0, done - 1, done, done, 200, b"")


def test_what_counts_begins_and_ends_with_an_answer() -> None:
    """Bursts of two each second, from 1.0 on; three clients; the first answer of the last burst comes too late."""
    answers = [answer(at + late) for at in (1.0, 2.0, 3.0, 4.0, 5.5) for late in (0.0, 0.001)]
    load = _between_answers(answers, 3, 5.5, 0.0)
    assert (load.began, load.ended) == (2.0, 4.001)
    assert len(load.counted) == 5


def test_whole_bursts_count() -> None:
    """A server that answers four at once: two bursts count after the first, and nothing of the one that is too late."""
    waiting: list[asyncio.StreamWriter] = []

    async def handle(writer: asyncio.StreamWriter) -> None:
        waiting.append(writer)
        if len(waiting) == 4:
            for one in waiting:
                one.write(PLAIN)
            waiting.clear()

    async def load() -> Load:
        async with server(handle) as port:
            return await closed(port, asked(), 4, 0.0)

    assert len(asyncio.run(load()).counted) == 2 * 4


def test_requests_arrive_whatever_became_of_the_others_and_are_timed_from_when_they_were_due() -> None:
    waiting = 0
    all_there = asyncio.Event()

    async def handle(writer: asyncio.StreamWriter) -> None:
        nonlocal waiting
        waiting += 1
        if waiting == 3:
            all_there.set()
        await all_there.wait()
        writer.write(PLAIN)

    async def load() -> Load:
        async with server(handle) as port:
            return await arriving(port, asked(), [0.0, 0.01, 0.02])

    done = asyncio.run(load())
    assert len(done.answers) == 3
    starts = sorted(one.asked - done.began for one in done.answers)
    assert starts == pytest.approx([0.0, 0.01, 0.02], abs=1e-6)
    assert min(one.done for one in done.answers) >= done.began + 0.02
