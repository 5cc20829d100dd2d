"""A handler for tests of the wire: no actors, only answers that the test decides on."""

from __future__ import annotations

import socket
from collections import Counter, deque
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import msgspec

from protocol.client import Client
from protocol.framing import Decoder, Encoding, decoder_for, encode
from protocol.handler import Answer, Body, Peer, Refusal
from protocol.messages.common import Message, Request, TailEvent
from protocol.server import Limits, Traffic, serve
from protocol.wire import Code


class Echo(Request[str], frozen=True):
    text: str


class Hold(Request[str], frozen=True):
    """Answered when the test says so."""

    name: str


class Refuse(Request[None], frozen=True):
    pass


class GetWhen(Request[datetime], frozen=True):
    pass


class GetOdd(Request[str], frozen=True):
    """Answered with something that cannot be encoded."""


class GetMuch(Request[str], frozen=True):
    """A small question with an answer of this many bytes."""

    size: int


class Note(Message, frozen=True):
    text: str


Said = Echo | Hold | Refuse | GetWhen | GetOdd | GetMuch | Note

WHEN = datetime(2026, 11, 23, 3, 0, tzinfo=UTC)


class Stream:
    """One subscription of the house."""

    def __init__(self) -> None:
        self.lagged = 0
        self.closed = False
        self._events: deque[TailEvent] = deque()
        self._come = anyio.Event()

    def put(self, event: TailEvent) -> None:
        self._events.append(event)
        self._come.set()

    async def __aiter__(self) -> AsyncIterator[TailEvent]:
        while True:
            while self._events:
                yield self._events.popleft()
            self._come = anyio.Event()
            await self._come.wait()

    def close(self) -> None:
        self.closed = True


class House:
    """Answers to ``House``; everything else is an unknown actor."""

    def __init__(self) -> None:
        self.asked: Counter[str] = Counter()
        """How often each message was begun, by its type."""
        self.held: dict[str, Answer] = {}
        self.given_up: list[str] = []
        self.notes: list[str] = []
        self.peers: set[Peer] = set()
        self.timeouts: list[float] = []
        self.streams: list[Stream] = []
        self.joined: list[socket.socket] = []

    def request(self, to: str, body: Body, timeout: float, answer: Answer, peer: Peer) -> Callable[[], None]:
        message = self._decode(to, body)
        self.peers.add(peer)
        self.asked[type(message).__name__] += 1
        self.timeouts.append(timeout)
        match message:
            case Echo(text):
                answer.reply(text)
            case Hold(name):
                self.held[name] = answer
                return partial(self.given_up.append, name)
            case Refuse():
                raise Refusal("not_now", "not while it rains", {"until": "noon"})
            case GetWhen():
                answer.reply(WHEN)
            case GetOdd():
                answer.reply(object())
            case GetMuch(size):
                answer.reply("x" * size)
        return lambda: None

    def cast(self, to: str, body: Body, peer: Peer) -> None:
        message = self._decode(to, body)
        assert isinstance(message, Note)
        self.notes.append(message.text)

    def subscribe(self, topics: Sequence[str]) -> Stream:
        if "nothing" in topics:
            raise Refusal(Code.UNKNOWN_TOPIC, "there is no topic nothing")
        self.streams.append(Stream())
        return self.streams[-1]

    def join(self, name: str, peer: Peer) -> Callable[[socket.socket], None]:
        if name != "Guest":
            raise Refusal(Code.NOT_JOINABLE, f"{name} is served here")
        self.peers.add(peer)
        return self.joined.append

    def publish(self, number: int, padding: str = "") -> None:
        for stream in self.streams:
            stream.put(TailEvent(topic="steps", at=WHEN, data={"number": number, "padding": padding}))

    def _decode(self, to: str, body: Body) -> Any:
        if to != "House":
            raise Refusal(Code.UNKNOWN_ACTOR, f"there is no actor {to}")
        return body.decode(Said)


@asynccontextmanager
async def serving(path: Path, house: House, traffic: Traffic | None = None, **limits: Any) -> AsyncIterator[None]:
    """A server that ends with the block."""
    async with anyio.create_task_group() as tasks:
        await tasks.start(partial(serve, path, house, limits=Limits(**limits), traffic=traffic))
        yield
        tasks.cancel_scope.cancel()


class Raw:
    """A bare connection, to say what no client of ours would."""

    def __init__(self, path: Path, encoding: Encoding = "json", *, connected: bool = True) -> None:
        self.encoding: Encoding = encoding
        self.path = path
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.socket.setblocking(False)
        self._decoder: Decoder = decoder_for(encoding, 64 << 20)
        self._got: deque[bytes] = deque()
        if connected:
            self.connect()

    def connect(self) -> None:
        try:
            self.socket.connect(str(self.path))
        except OSError:
            self.socket.close()
            raise

    async def __aenter__(self) -> Raw:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.socket.close()

    async def send_bytes(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            try:
                view = view[self.socket.send(view) :]
            except BlockingIOError:
                await anyio.wait_writable(self.socket)

    async def send(self, *objects: Any) -> None:
        await self.send_bytes(b"".join(encode(each, self.encoding) for each in objects))

    async def greet(self) -> dict[str, Any]:
        await self.send(hello())
        welcome = await self.receive()
        assert welcome["type"] == "welcome"
        return welcome

    async def receive(self) -> dict[str, Any]:
        """Return the next message; EOFError when the server closed."""
        with anyio.fail_after(10):
            while not self._got:
                await anyio.wait_readable(self.socket)
                try:
                    data = self.socket.recv(1 << 16)
                except ConnectionResetError as error:
                    raise EOFError from error
                if not data:
                    raise EOFError
                self._got.extend(self._decoder.feed(data))
        payload = self._got.popleft()
        module = msgspec.json if self.encoding == "json" else msgspec.msgpack
        return module.decode(payload)  # type: ignore[no-any-return]

    async def closed(self) -> bool:
        """Wait for the server to close, with nothing more to say."""
        try:
            await self.receive()
        except EOFError:
            return True
        return False


def hello(least: int = 1, most: int = 1) -> dict[str, Any]:
    return {"type": "hello", "min": least, "max": most, "client": "test/1.0"}


def request(id: str, body: dict[str, Any], to: str = "House", timeout: float = 5.0) -> dict[str, Any]:
    return {"type": "request", "id": id, "to": to, "timeout": timeout, "body": body}


async def until(condition: Callable[[], bool], within: float = 10.0) -> None:
    """Wait for a real condition."""
    with anyio.fail_after(within):
        while not condition():
            await anyio.sleep(0.005)


async def in_thread(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Run a blocking client beside the server."""
    call: Awaitable[Any] = anyio.to_thread.run_sync(partial(function, *args, **kwargs))
    return await call


class BlockingInThread:
    """The blocking client with the surface of the async one, so that one test reads for both."""

    def __init__(self, path: Path) -> None:
        self._path = path

    async def __aenter__(self) -> BlockingInThread:
        self._client: Client = await in_thread(Client.connect, self._path)
        self.server = self._client.server
        return self

    async def __aexit__(self, *_: object) -> None:
        self._client.close()

    async def call(self, to: str, message: Request[Any], timeout: float = 5.0) -> Any:
        return await in_thread(self._client.call, to, message, timeout)

    async def cast(self, to: str, message: Any) -> None:
        await in_thread(self._client.cast, to, message)
