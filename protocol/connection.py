"""One client of the server: its hello, its requests in flight, its subscriptions, and how it ends."""

from __future__ import annotations

import math
import socket
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from time import monotonic, perf_counter

import anyio
import anyio.abc

from protocol.answers import Answers, Asked
from protocol.backend import TimerHandle, current_backend
from protocol.boundary import Boundary
from protocol.handler import Body, Events, Handler, Peer, Refusal, told
from protocol.handover import hand_over
from protocol.hearing import PIECE, SMALL_PIECE, Hangup, Hearing
from protocol.limits import Limits
from protocol.listening import hung_up
from protocol.outbox import Feed, Outbox
from protocol.turns import LATELY, Turns
from protocol.wire import (
    VERSION,
    CastFrame,
    Code,
    Codec,
    ErrorFrame,
    HelloFrame,
    JoinFrame,
    MalformedMessage,
    ReplyFrame,
    RequestFrame,
    SubscribeFrame,
    WelcomeFrame,
)
from protocol.writer import Writer

LINGER = 1.0
"""Seconds in which a client that was told why it is hung up on may finish what it was writing."""

HALF_CLOSED_CHECK = 0.05
"""Seconds between two looks at a client that is done with writing: the kernel has no event for its final close."""


class Connection:
    """Reads and writes one accepted socket until either side has had enough. Harms nobody else, whatever comes."""

    def __init__(
        self,
        sock: socket.socket,
        peer: Peer,
        handler: Handler,
        answers: Answers,
        limits: Limits,
        welcome: WelcomeFrame,
        admit: Callable[[Connection], bool],
        turns: Turns,
    ) -> None:
        self.scope = anyio.CancelScope()
        """Cancel it to end the connection."""
        self._socket = sock
        self._peer = peer
        self._handler = handler
        self._answers = answers
        self._limits = limits
        self._welcome = welcome
        self._admit = admit
        self._turns = turns
        self._greeted = False
        self._hearing = Hearing(limits.max_frame)
        self._deadline = monotonic() + limits.hello_within
        self._backend = current_backend()
        self._receiver = self._backend.receiver(sock, self._receive)
        self._writer = Writer(sock, self._backend, self._take_out, limits.write_within, self._on_broken)
        self._outbox = Outbox(self._writer.soon)
        self._wanted_more = -math.inf  # when a turn was last too short for it
        self._held_back = False
        """Nothing is read until the client has taken more of its answers."""
        self._timer: TimerHandle | None = None
        self._tasks: anyio.abc.TaskGroup | None = None
        self._at_end = anyio.Event()
        self._hung_up = anyio.Event()
        self._end: BaseException | None = None
        """Why the conversation is over; none: the client has nothing more to say."""
        self._open: dict[Asked, int] = {}
        self._in_flight = 0
        self._subscriptions: list[Events] = []
        self._join: JoinFrame | None = None
        """Said, and not answered before it is sure that nothing has come after it."""

    @property
    def abandoned(self) -> list[Asked]:
        """After :meth:`run`: the requests under way that nobody waits for any more."""
        return [asked for asked in self._open if not asked.waiters]

    async def run(self) -> None:
        """Serve the client until it is gone, and close the socket."""
        try:
            with self.scope:
                async with anyio.create_task_group() as self._tasks:
                    self._receiver.resume()
                    self._look_at_deadline()
                    try:
                        await self._at_end.wait()
                        if self._end is not None:
                            raise self._end
                        await self._finish()
                    except Hangup as hangup:
                        await self._hang_up(hangup)
                    except ConnectionError:
                        pass  # the client went away, which is its right
                    finally:
                        self._at_end.set()  # what still comes begins nothing any more
                        tasks, self._tasks = self._tasks, None
                        tasks.cancel_scope.cancel()
        finally:
            if self._timer is not None:
                self._timer.cancel()
            self._last_words()
            self._receiver.close()
            self._writer.close()
            anyio.notify_closing(self._socket)  # the next socket of this number is another client's
            self._socket.close()
            for events in self._subscriptions:
                events.close()
            for asked in self._open:
                asked.waiters = tuple(tell for tell in asked.waiters if tell != self._answered)

    # ------------------------------------------------------------ reading

    def _receive(self, data: bytes | OSError) -> None:
        """Take what has come. Whatever that leads to is told to :meth:`run`, which is the one to fail."""
        if not data or isinstance(data, OSError):
            self._hung_up.set()
        if self._at_end.is_set():
            return  # what is still said after the end of the conversation is not heard
        if isinstance(data, OSError):
            self._fail(data)
        elif not data:
            self._at_end.set()
        else:
            self._hearing.take(data, SMALL_PIECE if self._turns.contended else PIECE)
            self._outbox.encoding = self._hearing.codec.encoding
            self._go_on(fresh=True)

    def _handle(self, *, fresh: bool) -> None:
        """Handle what was heard, for a turn; nothing more is read while some of it is left or answers are not taken."""
        hearing, outbox = self._hearing, self._outbox
        progress = False
        turn_ends = self._turns.begin(self)
        while (message := hearing.next()) is not None:
            progress = True
            self._take(message, hearing.codec)
            if outbox.crowded or perf_counter() > turn_ends:
                break
        if self._join is not None and not hearing.more:
            self._hand_over(self._join, more=hearing.partial)
        if outbox.crowded:
            self._held_back = True
            self._receiver.pause()
        elif hearing.more:
            self._receiver.pause()
            self._wanted_more = perf_counter()
            self._turns.put_off(self._backend, self._go_on)
        else:
            self._receiver.resume()
            if fresh and perf_counter() - self._wanted_more > LATELY:
                self._turns.was_brief()
        self._set_deadline(progress)

    def _go_on(self, *, fresh: bool = False) -> None:
        """Handle what has come, or what was left over from the turn before."""
        if self._at_end.is_set():
            return
        with Boundary(None) as edge:
            self._handle(fresh=fresh)
        if edge.error is not None:
            self._fail(edge.error)

    def _fail(self, error: BaseException) -> None:
        if not self._at_end.is_set():
            self._end = error
            self._at_end.set()

    def _set_deadline(self, progress: bool) -> None:
        """A message that was begun has to be finished in time; trickling does not prolong it."""
        if not self._greeted:
            return
        if self._held_back or self._hearing.more or not self._hearing.partial:
            self._deadline = math.inf
        elif progress or self._deadline == math.inf:
            self._deadline = monotonic() + self._limits.frame_within
            if self._timer is None:
                self._look_at_deadline()

    def _look_at_deadline(self) -> None:
        """Hang up if the time is over. The timer may go off early, since deadlines are put off without touching it."""
        self._timer = None
        left = self._deadline - monotonic()
        if self._at_end.is_set() or left == math.inf:
            return
        if left > 0:
            self._timer = self._backend.call_later(left, self._look_at_deadline)
        else:
            self._fail(self._too_slow())

    def _too_slow(self) -> Hangup:
        if self._greeted:
            return Hangup(Code.FRAME_TIMEOUT, f"a message was not finished within {self._limits.frame_within:g} s")
        return Hangup(Code.HELLO_TIMEOUT, f"no hello within {self._limits.hello_within:g} s")

    # ------------------------------------------------------------ messages

    def _take(self, payload: bytes, codec: Codec) -> None:
        if self._join is not None:
            self._hand_over(self._join, more=True)
        try:
            frame = codec.from_client(payload)
        except MalformedMessage as error:
            if not self._greeted:
                raise Hangup(Code.BAD_HELLO, f"not a hello: {error}") from error
            self._error(Code.BAD_MESSAGE, str(error), error.id)
            return
        if not self._greeted:
            self._greet(frame)
        elif isinstance(frame, RequestFrame):
            self._request(frame, codec)
        elif isinstance(frame, CastFrame):
            self._cast(frame, codec)
        elif isinstance(frame, SubscribeFrame):
            self._subscribe(frame, codec)
        elif isinstance(frame, JoinFrame):
            self._join = frame
        else:
            self._error(Code.BAD_MESSAGE, "hello was said already", None)

    def _greet(self, hello: object) -> None:
        if not isinstance(hello, HelloFrame) or hello.min > hello.max:
            raise Hangup(Code.BAD_HELLO, 'say hello first: {"type": "hello", "min": 1, "max": 1, "client": "name/1.0"}')
        if hello.max < VERSION:
            raise Hangup(
                Code.INCOMPATIBLE,
                f"{hello.client} speaks protocol versions up to {hello.max}, this server {VERSION}: update the client",
            )
        if hello.min > VERSION:
            raise Hangup(
                Code.INCOMPATIBLE,
                f"{hello.client} speaks protocol versions from {hello.min}, this server {VERSION}: update the daemon",
            )
        if not self._admit(self):
            raise Hangup(Code.FULL, f"{self._limits.max_connections} connections are open, which is the limit")
        self._greeted = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._outbox.put(self._welcome)

    def _request(self, frame: RequestFrame, codec: Codec) -> None:
        if self._in_flight >= self._limits.in_flight:
            self._error(Code.BUSY, f"{self._in_flight} requests are in flight on this connection", frame.id)
            return
        asked, new = self._answers.ask(frame, codec.encoding)
        if asked.done:
            self._answer(asked, 1)
            self._writer.soon()
            return
        self._in_flight += 1
        if asked in self._open:
            self._open[asked] += 1
        else:
            self._open[asked] = 1
            asked.waiters += (self._answered,)
        if new:
            try:
                body = Body(frame.body, codec)
                cancel = self._handler.request(frame.to, body, frame.timeout, asked, self._peer)
            except (Refusal, MalformedMessage) as error:
                asked.fail(*told(error))
            else:
                asked.begun(cancel)

    def _answered(self, asked: Asked) -> None:
        """Put the answer of a request into the outbox, as often as it was asked here."""
        count = self._open.pop(asked)
        self._in_flight -= count
        self._answer(asked, count)
        if self._outbox.overfull:
            self.scope.cancel()
        elif self._in_flight:
            self._writer.soon()
        else:
            self._writer.now()  # whoever asks one thing at a time waits for this

    def _answer(self, asked: Asked, count: int) -> None:
        outbox = self._outbox
        if asked.error is not None:
            for _ in range(count):
                outbox.put(asked.failure())
            return
        for _ in range(count):
            outbox.put_encoded(asked.data)

    def _cast(self, frame: CastFrame, codec: Codec) -> None:
        try:
            self._handler.cast(frame.to, Body(frame.body, codec), self._peer)
        except (Refusal, MalformedMessage) as error:
            code, message, detail = told(error)
            self._outbox.put(ErrorFrame(code=code, message=message, detail=detail))

    def _subscribe(self, frame: SubscribeFrame, codec: Codec) -> None:
        if len(self._subscriptions) >= self._limits.subscriptions:
            self._error(Code.BUSY, f"{len(self._subscriptions)} subscriptions are open on this connection", frame.id)
            return
        try:
            events = self._handler.subscribe(frame.topics)
        except Refusal as error:
            self._outbox.put(ErrorFrame(code=error.code, message=str(error), id=frame.id, detail=error.detail))
            return
        self._subscriptions.append(events)
        self._outbox.put(ReplyFrame(id=frame.id, body=None))
        # By a task: where a plain asyncio program calls back, anyio starts none.
        self._backend.spawn(partial(self._listen, events, Feed(frame.id, self._limits.events)), "subscription")

    def _hand_over(self, join: JoinFrame, *, more: bool) -> None:
        """Let the handler have the socket, if it takes it; then nothing is read or written here any more."""
        self._join = None
        self._writer.now()
        alone = not (more or self._in_flight or self._subscriptions or self._writer.blocked)
        try:
            give = hand_over(join, self._hearing.codec.encoding, self._socket, self._handler, self._peer, alone=alone)
        except Refusal as error:
            self._error(error.code, str(error), join.id)
            return
        self._outbox.put(ReplyFrame(id=join.id, body=None))
        self._receiver.close()
        self._writer.close()
        self._at_end.set()
        give()

    async def _listen(self, events: Events, feed: Feed) -> None:
        if self._tasks is not None:
            self._tasks.start_soon(self._pump, events, feed)

    async def _pump(self, events: Events, feed: Feed) -> None:
        """Take events as fast as they come: whoever publishes them never waits for this client."""
        lagged = 0
        async for event in events:
            if events.lagged > lagged:
                self._outbox.missed(events.lagged - lagged, feed)
                lagged = events.lagged
            self._outbox.offer(event, feed)
            if self._outbox.overfull:
                self.scope.cancel()

    def _error(self, code: str, message: str, id: str | None) -> None:
        self._outbox.put(ErrorFrame(code=code, message=message, id=id))

    # ------------------------------------------------------------ writing

    def _take_out(self) -> bytes:
        """Return the next bytes for the writer."""
        data = self._outbox.take()
        if self._held_back and not self._outbox.crowded:
            self._held_back = False
            self._backend.call_soon(self._go_on)
        return data

    def _on_broken(self, error: OSError) -> None:
        if isinstance(error, ConnectionError | TimeoutError):
            self.scope.cancel()
        else:
            self._fail(error)

    # ------------------------------------------------------------ the end

    async def _finish(self) -> None:
        """The client is done with writing: what it asked for is still answered, as long as it can hear."""
        while (self._in_flight or self._subscriptions) and not hung_up(self._socket):  # noqa: ASYNC110
            await anyio.sleep(HALF_CLOSED_CHECK)
        await self._writer.empty()

    async def _hang_up(self, hangup: Hangup) -> None:
        """Tell the client why, and let it read that: a socket closed with unread input looks like a reset to it."""
        if not self._hearing.begun:
            return
        self._error(hangup.code, str(hangup), None)
        await self._writer.empty()
        with suppress(OSError), anyio.move_on_after(LINGER):
            self._socket.shutdown(socket.SHUT_WR)
            self._receiver.resume()
            await self._hung_up.wait()

    def _last_words(self) -> None:
        """Tell those who still wait that no answer will come here; the writer sends what the socket takes at once."""
        for asked in (each for each, count in self._open.items() for _ in range(count)):
            message = f"the server closed the connection before {asked.key[1]} answered; whether it was done is unknown"
            self._error(Code.CONNECTION_LOST, message, asked.key[0])
