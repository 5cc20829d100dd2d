"""Supervised actors in the manner of Erlang/OTP, for asyncio and trio programs.

Define :class:`Actor` classes, list them as :class:`ChildSpec` under a :class:`SupervisorSpec`, and run the tree with
:func:`open_tree`. Nothing here installs a signal handler or imports anything heavy.
"""

from __future__ import annotations

from protocol.messages.common import Message, Request
from supervisor.actor import Actor, on, on_batch, on_deferred, on_down
from supervisor.backoff import Backoff
from supervisor.clock import Clock, SystemClock
from supervisor.context import Context, Timer
from supervisor.durable import Disk, Space
from supervisor.dynamic import dynamic_supervisor
from supervisor.errors import (
    AlreadyPresent,
    AlreadyStarted,
    BootRefused,
    CallFailed,
    CallingSelf,
    CallTimeout,
    ChildRestarting,
    ChildRunning,
    ChildStartFailed,
    ConnectionLost,
    HandlerFailed,
    MailboxFull,
    NoSuchActor,
    NoSuchChild,
    NotRunning,
    Refused,
    Restarting,
    SpecError,
    StopIncomplete,
    Stopping,
    Stuck,
    SupervisorError,
    SupervisorStopping,
    TooManyChildren,
    TreeStartFailed,
)
from supervisor.join import Guest, open_guest, serve_guest
from supervisor.mailbox import Mailbox
from supervisor.monitor import Down
from supervisor.partitions import PartitionRefs, partitions
from supervisor.reasons import Crash, Killed, Normal, Reason, Shutdown, StartFailed, Timeout
from supervisor.ref import Ref
from supervisor.reply import Pending, Reply
from supervisor.requests import ChildCounts, ChildView, SupervisorRef
from supervisor.spec import ChildSpec, CoolDown, Escalate, ProcessStart, SupervisorSpec, joinable
from supervisor.stream import EventStream, Subscription
from supervisor.tree import ExitReport, Tree, open_tree

__all__ = [
    "Actor",
    "AlreadyPresent",
    "AlreadyStarted",
    "Backoff",
    "BootRefused",
    "CallFailed",
    "CallTimeout",
    "CallingSelf",
    "ChildCounts",
    "ChildRestarting",
    "ChildRunning",
    "ChildSpec",
    "ChildStartFailed",
    "ChildView",
    "Clock",
    "ConnectionLost",
    "Context",
    "CoolDown",
    "Crash",
    "Disk",
    "Down",
    "Escalate",
    "EventStream",
    "ExitReport",
    "Guest",
    "HandlerFailed",
    "Killed",
    "Mailbox",
    "MailboxFull",
    "Message",
    "NoSuchActor",
    "NoSuchChild",
    "Normal",
    "NotRunning",
    "PartitionRefs",
    "Pending",
    "ProcessStart",
    "Reason",
    "Ref",
    "Refused",
    "Reply",
    "Request",
    "Restarting",
    "Shutdown",
    "Space",
    "SpecError",
    "StartFailed",
    "StopIncomplete",
    "Stopping",
    "Stuck",
    "Subscription",
    "SupervisorError",
    "SupervisorRef",
    "SupervisorSpec",
    "SupervisorStopping",
    "SystemClock",
    "Timeout",
    "Timer",
    "TooManyChildren",
    "Tree",
    "TreeStartFailed",
    "dynamic_supervisor",
    "joinable",
    "on",
    "on_batch",
    "on_deferred",
    "on_down",
    "open_guest",
    "open_tree",
    "partitions",
    "serve_guest",
]
