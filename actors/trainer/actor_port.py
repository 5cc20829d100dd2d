"""The session's port, made of calls and casts to the daemon's actors.

The methods of :class:`~actors.trainer.port.Port` run in the training thread, the ``ask`` methods on the event loop. A
peer that is restarting is waited for: its fall does not end training.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import anyio
import anyio.from_thread

from actors.trainer.port import Consolidate, LetGo, LetGoReason, Stop, Wish
from protocol.config import Config
from protocol.messages.common import BadLine, Message, Phase, Request
from protocol.messages.disk import CheckpointCost, Purpose, Reserve, Reserved, Unreserve, WriteFailed
from protocol.messages.queue import (
    Claim,
    ClaimReply,
    Committed,
    JobPhase,
    JobRefused,
    JobStats,
    Published,
    Release,
    Trained,
)
from protocol.messages.trainer import ConsolidationResult, Progress
from supervisor import CallFailed, ConnectionLost, Context, HandlerFailed, MailboxFull, Reply

R = TypeVar("R")

QUEUE, DISK, BOARD = "QueueManager", "DiskMonitor", "ControlSocket"
CALL_TIMEOUT = 30.0
RETRY_EVERY = 0.2
CRASHES_SUFFERED = 5
"""Answers "your message crashed me" in a row before it is taken for the message's fault."""
PATIENCE_AT_STOP = 10.0
"""Seconds for which a peer that does not answer is waited for once a stop is asked."""


class ActorPort:
    """One per incarnation of TrainerActor."""

    def __init__(self, context: Context, config: Config) -> None:
        self._context = context
        self._config = config
        self._stop: Stop | None = None
        self._yield: LetGo | None = None
        self._consolidate: Consolidate | None = None
        self._reply: Reply[ConsolidationResult] | None = None
        self._news = threading.Event()
        self._bell = anyio.Event()
        self._stopped_at = 0.0
        self._phase = "starting"

    # ---------------------------------------------------------------- on the event loop

    def ask_stop(self) -> None:
        if self._stop is None:
            self._stop, self._stopped_at = Stop(), self._context.clock.monotonic()
        self.ring()

    def ask_yield(self, job: str, why: LetGoReason) -> None:
        self._yield = LetGo(job, why)
        self.ring()

    def ask_consolidation(self, lease: str, reply: Reply[ConsolidationResult]) -> bool:
        """False: one is under way already."""
        if self._reply is not None and not self._reply.done:
            return False
        self._consolidate, self._reply = Consolidate(lease), reply
        self.ring()
        return True

    def renew(self, config: Config) -> None:
        """Take over a new snapshot of the settings."""
        self._config = config
        self.ring()

    def ring(self) -> None:
        """Wake the session, if it waits."""
        self._news.set()
        self._bell.set()

    def summary(self) -> dict[str, object]:
        asked = self._stop or self._yield or self._consolidate
        return {"phase": self._phase, "asked": repr(asked) if asked else None}

    # ---------------------------------------------------------------- in the training thread

    def config(self) -> Config:
        return self._config

    def wanted(self, job: str | None = None) -> Wish | None:
        if self._stop is not None:
            return self._stop
        if job is None:
            return self._consolidate
        asked = self._yield
        return asked if asked is not None and asked.id == job else None

    def wait(self, seconds: float) -> None:
        self._news.wait(seconds)
        self._news.clear()

    def claim(self, wait_s: float) -> ClaimReply:
        self._yield = None  # of a job that is held no longer
        return self._patiently(self._claim, wait_s)

    def phase(self, job: str, phase: Phase) -> None:
        self._phase = phase
        self._send(QUEUE, JobPhase(job, phase))

    def progress(self, progress: Progress) -> None:
        def cast() -> None:
            with contextlib.suppress(MailboxFull):  # only the newest matters, and the next comes with the next step
                self._context.ref(BOARD).cast(progress)

        anyio.from_thread.run_sync(cast)

    def trained(self, job: str, stats: JobStats) -> None:
        self._call(QUEUE, Trained(job, stats))

    def committed(self, told: Committed) -> None:
        self._call(QUEUE, told)

    def published(self, told: Published) -> None:
        self._send(QUEUE, told)

    def release(self, job: str, why: LetGoReason, stats: JobStats) -> None:
        self._call(QUEUE, Release(job, why, stats))

    def refused(self, job: str, reason: str, lines: tuple[BadLine, ...]) -> None:
        self._call(QUEUE, JobRefused(job, reason, lines))

    def reserve(self, size: int, purpose: Purpose, wait_s: float) -> Reserved:
        return self._call(DISK, Reserve(size, purpose, wait_s), wait_s)

    def unreserve(self, token: str) -> None:
        self._call(DISK, Unreserve(token))

    def cost(self, checkpoint_bytes: int, version_bytes: int) -> None:
        self._send(DISK, CheckpointCost(checkpoint_bytes, version_bytes))

    def write_failed(self, path: str, error: str) -> None:
        self._send(DISK, WriteFailed(path, error))

    def warn(self, what: str) -> None:
        entry = {"event": "trainer", "level": "warning", "reason": what}
        anyio.from_thread.run_sync(self._context.publish, "logs", entry)

    def beat(self, phase: str, limit: float | None = None) -> None:
        self._phase = phase
        self._context.beat(phase, limit)

    def consolidated(self, result: ConsolidationResult) -> None:
        self._consolidate = None
        if self._reply is not None:
            anyio.from_thread.run_sync(self._reply.send, result)
        self._reply = None

    # ---------------------------------------------------------------- between the two

    def _send(self, to: str, message: Message) -> None:
        anyio.from_thread.run(self._context.ref(to).send, message)

    def _call(self, to: str, request: Request[R], wait_s: float = 0.0) -> R:
        async def once() -> R:
            return await self._context.ref(to).call(request, timeout=wait_s + CALL_TIMEOUT)

        return self._patiently(once)

    def _patiently(self, call: Callable[..., Awaitable[R]], *args: Any) -> R:
        """Call until there is an answer: every message of ours may be told twice."""
        return anyio.from_thread.run(self._again, call, args)

    async def _again(self, call: Callable[..., Awaitable[R]], args: tuple[Any, ...]) -> R:
        crashes = 0
        while True:
            try:
                return await call(*args)
            except ConnectionLost:
                raise  # the daemon is gone, and this process with it
            except HandlerFailed as error:
                crashes += 1
                if error.code is not None or crashes >= CRASHES_SUFFERED:
                    raise
            except CallFailed:
                if self._stop is not None and self._context.clock.monotonic() - self._stopped_at > PATIENCE_AT_STOP:
                    raise
            self._context.beat(self._phase)
            await anyio.sleep(RETRY_EVERY)

    async def _claim(self, wait_s: float) -> ClaimReply:
        """Claim; end the wait when something is asked, by a claim that does not wait."""
        self._bell = anyio.Event()
        if self._stop is not None or self._consolidate is not None:
            wait_s = 0.0
        queue = self._context.ref(QUEUE)
        first = queue.request(Claim(wait_s), timeout=wait_s + CALL_TIMEOUT)
        first.on_done(lambda _: self._bell.set())
        await self._bell.wait()
        if first.done:
            return first.result()
        # It ends the wait of the first. A job that this was given meanwhile is taken back, and handed out again.
        return await queue.call(Claim(0.0), timeout=CALL_TIMEOUT)
