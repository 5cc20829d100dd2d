"""The values that the golden lines stand for: at least one of every frame, message and reply, with odd text in it."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from protocol.messages import consolidator, disk, inbox, queue, system
from protocol.messages.common import Done, TailEvent
from protocol.messages.trainer import ConsolidationResult
from protocol.wire import (
    CastFrame,
    ErrorFrame,
    EventFrame,
    HelloFrame,
    JoinFrame,
    LaggedFrame,
    ReplyFrame,
    RequestFrame,
    SubscribeFrame,
    WelcomeFrame,
)

AT = datetime(2026, 11, 23, 3, 0, 0, 250_000, tzinfo=UTC)
FILE = 'größe "1" \\ 火.jsonl'
ID = "01kaqv0000abcdefghjkmnpqrs"
SHA = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"

JOB = queue.JobView(ID, FILE, "high", "failed", 3, "line 7: no JSON", 1 << 40, SHA, 153, AT)
ENDED = queue.HistoryEntry(ID, FILE, SHA, "trained", 150, 2, 1, 4321, 12, 3.25, 0.5, 4, AT, AT, 1)
ACTOR = system.ActorState(
    "QueueManager", "worker", "running", "core", 2, 4242, 1, 12.5, "crash: ValueError: no", "Traceback …\n", 3, 1024,
    {"GetQueue": 3}, "Accept", {"waiting": 2, "gate": None},
)  # fmt: skip
LEAF = system.TreeNode("QueueManager", "worker", "running", 1, "crash", 12.5, 3, 4242, [])
STATUS = system.Status(
    state="training",
    reason=None,
    pid=4242,
    uptime_s=3600.5,
    job=system.JobStatus(ID, FILE, "normal", 1, "training", 3, 12, 40, 153, 999, 0.75, None, 61.5),
    queue=queue.QueueCounts(1, 2, 3, 4, 5, 6, 7),
    disk=system.DiskStatus(50 << 30, "low"),
    model=system.ModelStatus(4, 1200, 3),
    warnings=["disk: 50 GiB free"],
    http=system.HttpStatus("127.0.0.1", 9464),
    restarts=1,
    home="/srv/stokehold",
    trainer_pid=4343,
)
IDLE = system.Status(
    "idle", None, 1, 0.0, None, queue.QueueCounts(), system.DiskStatus(0, "ok"), system.ModelStatus(None, 0, 0), [],
    None, 0, "/srv/stokehold", None,
)  # fmt: skip
CONFIG = system.ShownConfig(
    3, {"disk": {"refuse_below": 1 << 30}}, {"disk.refuse_below": '"1GiB"'}, {"disk.refuse_below": "default"}
)

RECENT = system.RecentEvents(["crashes", "state"], [TailEvent("crashes", AT, {"name": "a", "reason": FILE})])

CLIENT: dict[str, Any] = {
    "hello": HelloFrame(min=1, max=1, client="golden/1.0"),
    "request": RequestFrame(id="a1", to="QueueManager", body=queue.Pause(release=True), timeout=7.5),
    "request with the default timeout": RequestFrame(id="ä" * 64, to="ControlSocket", body=system.GetStatus()),
    "cast": CastFrame(to="QueueManager", body=queue.Resume()),
    "join": JoinFrame(id="j1", name="Judge"),
    "subscribe": SubscribeFrame(id="s1", topics=["state", "steps"]),
}
SERVER: dict[str, Any] = {
    "welcome": WelcomeFrame(
        version=1, server="stokehold/0.1.0", pid=4242, instance="6f1c9f0e-0d5c-4d8e-9a57-4f0f6d0f7f10"
    ),
    "reply": ReplyFrame(id="a1", body=Done("paused")),
    "reply without a body": ReplyFrame(id="s1", body=None),
    "error": ErrorFrame(code="handler_failed", message=FILE, id="a1", detail={"line": 7, "why": [None, True, 1.5]}),
    "error of the connection": ErrorFrame(code="bad_frame", message="a frame of length 0"),
    "event": EventFrame(id="s1", topic="steps", at=AT, data={"step": 3, "loss": 0.5, "file": FILE}),
    "lagged": LaggedFrame(id="s1", missed=12),
}
MESSAGES: dict[str, Any] = {
    "GetStatus": system.GetStatus(),
    "ShowConfig": system.ShowConfig(),
    "GetTree": system.GetTree(),
    "GetEvents": system.GetEvents(("crashes", "lifecycle")),
    "GetActor": system.GetActor("QueueManager"),
    "SuspendActor": system.SuspendActor("QueueManager"),
    "ResumeActor": system.ResumeActor("QueueManager"),
    "RestartActor": system.RestartActor("QueueManager"),
    "GetQueue": queue.GetQueue(),
    "GetJob": queue.GetJob(FILE),
    "GetHistory": queue.GetHistory(5, "trained"),
    "WaitAccepted": queue.WaitAccepted("submit-1"),
    "WaitFinished": queue.WaitFinished(ID),
    "Retry": queue.Retry(ID),
    "Cancel": queue.Cancel(ID),
    "Move": queue.Move(ID, "low"),
    "Pause": queue.Pause(True),
    "Resume": queue.Resume(),
    "Skip": queue.Skip(),
    "StopAfterFile": queue.StopAfterFile(),
    "Stop": system.Stop("after_file"),
    "ReloadConfig": system.ReloadConfig(),
    "ConsolidateNow": consolidator.ConsolidateNow(),
    "GetConsolidator": consolidator.GetConsolidator(),
    "Rescan": inbox.Rescan(),
    "GetDisk": disk.GetDisk(),
}
REPLIES: dict[str, Any] = {
    "GetStatus": STATUS,
    "GetStatus of an idle daemon": IDLE,
    "ShowConfig": CONFIG,
    "GetTree": system.TreeNode("root", "supervisor", "running", 0, None, None, 0, None, [LEAF]),
    "GetEvents": RECENT,
    "GetActor": ACTOR,
    "SuspendActor": Done("QueueManager is suspended"),
    "ResumeActor": Done("QueueManager is resumed"),
    "RestartActor": ACTOR,
    "GetQueue": [JOB],
    "GetJob": JOB,
    "GetHistory": [ENDED, queue.HistoryEntry(ID, FILE, SHA, "cancelled", 0, 0, 0, 0, 0, None, None, None, None, AT, 0)],
    "WaitAccepted": queue.Accepted(ID, FILE, "queued", None, True),
    "WaitFinished": ENDED,
    "Retry": JOB,
    "Cancel": Done(),
    "Move": JOB,
    "Pause": Done("paused"),
    "Resume": Done(),
    "Skip": Done(),
    "StopAfterFile": Done(),
    "Stop": Done(),
    "ReloadConfig": system.ReloadResult(False, 3, [], ["model.source"], "model.source is fixed for the home"),
    "ConsolidateNow": ConsolidationResult("promoted", "merged", 5),
    "GetConsolidator": consolidator.ConsolidatorView(False, AT, None, "refused", "the inbox is not empty"),
    "Rescan": Done(),
    "GetDisk": disk.DiskView(50 << 30, 1 << 42, 1 << 20, "low", 10 << 30, 50 << 30, 0),
}  # fmt: skip

ALL: dict[str, dict[str, Any]] = {"client": CLIENT, "server": SERVER, "messages": MESSAGES, "replies": REPLIES}
"""By the file that holds their lines."""
