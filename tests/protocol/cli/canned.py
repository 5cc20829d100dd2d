"""A small real server with canned answers, in a process of its own: ``python -m tests.protocol.cli.canned HOME``.

It holds the home's lock as a daemon does, takes files out of the inbox when it is asked about them, and ends when it is
told to. What it says can be changed through ``HOME/canned.json``: a status to merge in. While ``HOME/starting`` is
there it has no SignalHandler yet; each SIGTERM adds a byte to ``HOME/terminated`` and the first one ends it.
"""

from __future__ import annotations

import fcntl
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from datetime import UTC, datetime
from functools import partial, reduce
from operator import or_
from pathlib import Path
from typing import Any

import anyio
import msgspec

from protocol.handler import Answer, Body, Peer, Refusal
from protocol.home import Home
from protocol.messages import consolidator, queue, system
from protocol.messages.common import Done, Request, TailEvent, tag_of
from protocol.messages.trainer import ConsolidationResult
from protocol.server import serve
from protocol.wire import Code

AT = datetime(2026, 3, 4, 5, 6, 7, tzinfo=UTC)

STATUS = system.Status(
    state="training",
    reason=None,
    pid=0,
    uptime_s=11_400.25,
    job=system.JobStatus(
        id="01jaaaaaaaaaaaaaaaaaaaaaaa", file="chät.jsonl", priority="normal", attempt=2, phase="training", step=30,
        steps_total=120, samples_done=250, samples_total=1000, tokens=51_200, loss=2.41258, tokens_per_s=1830.4,
        eta_s=250.0,
    ),
    queue=queue.QueueCounts(inbox=1, high=2, normal=3, low=0, processing=1, failed=1, done=12),
    disk=system.DiskStatus(free_bytes=78 * 2**30, level="ok"),
    model=system.ModelStatus(version=3, step=1204, behind_steps=84),
    warnings=["InboxWatcher: something odd (look at it)"],
    http=None,
    restarts=2,
    home="",
    trainer_pid=None,
)  # fmt: skip

JOBS = [
    queue.JobView(
        id=f"01j{letter * 23}", file=f"{letter}.jsonl", priority="normal", state=state, attempts=attempts,
        last_error=error, bytes=2048, sha256=letter * 64, samples=7, submitted_at=AT,
    )
    for letter, state, attempts, error in (
        ("a", "processing", 1, None), ("b", "queued", 0, None), ("c", "failed", 3, "loss is not finite"),
    )
]  # fmt: skip


def node(id: str, *children: system.TreeNode, **facts: Any) -> system.TreeNode:
    given: dict[str, Any] = {
        "status": "running",
        "restarts": 0,
        "last_exit": None,
        "uptime_s": 60.0,
        "mailbox": 0,
        "pid": None,
    }
    kind: Any = "supervisor" if children else "worker"
    return system.TreeNode(id=id, kind=kind, children=list(children), **(given | facts))


TREE = node(
    "root",
    node("core", node("QueueManager", mailbox=4), node("ControlSocket", restarts=1, last_exit="Crash(ValueError)")),
    node("training", node("TrainerActor", pid=4242, status="cooling down", last_exit="Killed(9)\nsecond line")),
)


def entry(id: str, file: str, outcome: Any = "trained") -> queue.HistoryEntry:
    return queue.HistoryEntry(
        id=id, file=file, sha256="0" * 64, outcome=outcome, samples=7, held_out=0, refused=0, tokens=900, steps=12,
        first_loss=5.25, last_loss=2.5, version=None, started_at=AT, finished_at=AT, interruptions=1,
    )  # fmt: skip


class Canned:
    """The handler."""

    def __init__(self, home: Home, ended: anyio.Event) -> None:
        self._home = home
        self._ended = ended
        requests = [
            kind
            for kind in vars(queue).values()
            if isinstance(kind, type) and issubclass(kind, Request) and kind is not Request
        ]
        self._kinds: dict[str, Any] = {
            "ControlSocket": system.GetStatus | system.GetTree | system.GetEvents | system.ShowConfig,
            "SignalHandler": system.Stop | system.ReloadConfig,
            "Consolidator": consolidator.ConsolidateNow | consolidator.GetConsolidator,
            "QueueManager": reduce(or_, requests),
        }

    def request(self, to: str, body: Body, timeout: float, answer: Answer, peer: Peer) -> Callable[[], None]:
        if to not in self._kinds:
            raise Refusal(Code.UNKNOWN_ACTOR, f"no actor bears the name {to}")
        message = body.decode(self._kinds[to])
        with (self._home.root / "asked").open("a") as asked:
            asked.write(json.dumps([to, msgspec.to_builtins(message)]) + "\n")
        reply = getattr(self, tag_of(type(message).__name__))(message)
        answer.reply(reply)
        return lambda: None

    def cast(self, to: str, body: Body, peer: Peer) -> None:
        raise Refusal(Code.UNKNOWN_ACTOR, to)

    def subscribe(self, topics: Sequence[str]) -> Events:
        return Events(topics)

    # ---------------------------------------------------------------- ControlSocket

    def get_status(self, message: system.GetStatus) -> Any:
        own = self._home.root / "canned.json"
        changes = json.loads(own.read_text()) if own.exists() else {}
        plain = msgspec.to_builtins(STATUS) | {"home": str(self._home.root), "pid": os.getpid()} | changes
        return msgspec.convert(plain, system.Status)

    def get_tree(self, message: system.GetTree) -> system.TreeNode:
        return TREE

    def get_events(self, message: system.GetEvents) -> system.RecentEvents:
        topics = message.topics or ["crashes", "state", "steps"]
        events = [told(number, topic) for number, topic in enumerate(topics)]
        return system.RecentEvents(topics=["crashes", "state", "steps"], events=events)

    def show_config(self, message: system.ShowConfig) -> system.ShownConfig:
        from protocol.config import ChildSection, Config, DiskSection
        from protocol.settings import written

        disk = DiskSection(refuse_below=10**9, warn_below=2 << 30)
        config = Config(disk=disk, supervision={"TrainerActor": ChildSection(shutdown=90)})
        origins = {"disk.refuse_below": "/some/file.toml:3"}
        return system.ShownConfig(
            revision=4, values=msgspec.to_builtins(config), written=written(config), origins=origins
        )

    # ---------------------------------------------------------------- SignalHandler

    def stop(self, message: system.Stop) -> Done:
        if (self._home.root / "starting").exists():
            raise Refusal(Code.NOT_RUNNING, "SignalHandler is not running")
        if message.mode == "now":
            os._exit(143)
        self._ended.set()
        return Done()

    def reload_config(self, message: system.ReloadConfig) -> system.ReloadResult:
        if (self._home.root / "refuse-reload").exists():
            return system.ReloadResult(
                applied=False, revision=4, changed=[], standing_in_the_way=["http.port (restart)"], reason="not live"
            )
        return system.ReloadResult(applied=True, revision=5, changed=["disk.every"], standing_in_the_way=[])

    # ---------------------------------------------------------------- Consolidator

    def consolidate_now(self, message: consolidator.ConsolidateNow) -> ConsolidationResult:
        return ConsolidationResult(outcome="refused", reason="nothing was trained since the last one")

    def get_consolidator(self, message: consolidator.GetConsolidator) -> consolidator.ConsolidatorView:
        return consolidator.ConsolidatorView(
            running=False, next_at=AT, last_at=AT, last_outcome="promoted", last_reason="merged"
        )

    # ---------------------------------------------------------------- QueueManager

    def get_queue(self, message: queue.GetQueue) -> list[queue.JobView]:
        return JOBS

    def get_job(self, message: queue.GetJob) -> queue.JobView:
        for job in JOBS:
            if message.job in (job.id, job.file):
                return job
        raise Refusal("unknown_job", f"no job is called {message.job}; see: stokehold queue list")

    def retry(self, message: queue.Retry) -> queue.JobView:
        return msgspec.structs.replace(self.get_job(queue.GetJob(job=message.job)), state="queued", attempts=0)

    def move(self, message: queue.Move) -> queue.JobView:
        return msgspec.structs.replace(self.get_job(queue.GetJob(job=message.job)), priority=message.priority)

    def cancel(self, message: queue.Cancel) -> Done:
        self.get_job(queue.GetJob(job=message.job))
        return Done()

    def pause(self, message: queue.Pause) -> Done:
        return Done(detail="")

    def resume(self, message: queue.Resume) -> Done:
        return Done(detail="training goes on")

    def skip(self, message: queue.Skip) -> Done:
        raise Refusal("nothing_runs", "no file is being trained")

    def get_history(self, message: queue.GetHistory) -> list[queue.HistoryEntry]:
        entries = [
            entry("01jbbbbbbbbbbbbbbbbbbbbbbb", "b.jsonl"),
            entry("01jaaaaaaaaaaaaaaaaaaaaaaa", "a.jsonl", "failed"),
        ]
        return [e for e in entries if message.outcome in (None, e.outcome)][: message.limit]

    def wait_accepted(self, message: queue.WaitAccepted) -> queue.Accepted:
        """Take the file out of the inbox; one that says ``bad`` is refused with a report."""
        (path,) = self._home.inbox.glob(f"@{message.submit_id}-*")
        name = path.name.split("@", 2)[2]
        if b"die" in path.read_bytes():
            os._exit(137)
        if b"bad" not in path.read_bytes():
            path.rename(self._home.line("normal") / name)
            return queue.Accepted(id=message.submit_id, file=name, state="queued")
        report = {
            "id": message.submit_id, "file": name, "reason": "2 bad lines", "attempts": 0, "lines": [2, 5],
            "traceback": None,
        }  # fmt: skip
        (self._home.failed / f"{name}~2.error.json").write_text(json.dumps(report))
        path.rename(self._home.failed / f"{name}~2")
        return queue.Accepted(id=message.submit_id, file=name, state="failed", reason="2 bad lines")

    def wait_finished(self, message: queue.WaitFinished) -> queue.HistoryEntry:
        explosive = any(b"explode" in path.read_bytes() for path in self._home.line("normal").iterdir())
        return entry(message.job, "x.jsonl", "failed" if explosive else "trained")


def told(number: int, topic: str) -> TailEvent:
    data = {"event": f"number {number}", "actor": "TrainerActor", "\x1b[31m": "x y"}
    return TailEvent(topic=topic, at=AT, data=data)


class Events:
    """Two events, then silence."""

    lagged = 0

    def __init__(self, topics: Sequence[str]) -> None:
        self._topics = topics
        self._closed = anyio.Event()

    async def __aiter__(self) -> AsyncIterator[TailEvent]:
        for number, topic in enumerate(self._topics):
            yield told(number, topic)
        await self._closed.wait()

    def close(self) -> None:
        self._closed.set()


async def main(home: Home) -> None:
    lock = home.lock.open("w")
    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    lock.write(json.dumps({"pid": os.getpid()}))
    lock.flush()
    ended = anyio.Event()

    async def obey_signals() -> None:
        with anyio.open_signal_receiver(signal.SIGTERM) as signals:
            async for _ in signals:
                with (home.root / "terminated").open("a") as file:
                    file.write(".")
                ended.set()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(obey_signals)
        await tasks.start(partial(serve, home.socket, Canned(home, ended)))
        await ended.wait()
        # A daemon takes its time over the last checkpoint.
        await anyio.sleep(0.3)
        (home.root / "checkpointed").touch()
        tasks.cancel_scope.cancel()


if __name__ == "__main__":
    anyio.run(main, Home(Path(sys.argv[1])))
