"""What the daemon and a process host say to each other: one msgpack map in each datagram of a SOCK_SEQPACKET pair.

Datagrams keep their bounds and carry a descriptor along (SCM_RIGHTS), so no framing is needed; a datagram of no bytes
is the end of file. Both ends are processes of ours and nothing is unpickled.
"""

from __future__ import annotations

from typing import Literal

import msgspec

Backend = Literal["asyncio", "trio"]

LARGEST = 128 * 1024
"""Bytes in one datagram, well under the kernel's default socket buffer. Tracebacks are cut to fit."""


class HostMessage(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="type", tag=str.lower):
    """One datagram."""


class Configure(HostMessage, frozen=True):
    """The first command: where to import from, and what to import before any child is forked."""

    path: list[str]
    """``sys.path`` of the daemon."""
    preload: list[str]
    backend: Backend
    """The event loop of the children."""
    shared: bool = False
    """Whether several children live at a time. Then each adopts its own orphans: only so can the host tell whose they
    were when one of the children has ended."""


class Fork(HostMessage, frozen=True):
    """Fork a child; its end of the link comes with the datagram."""

    number: int
    """What the daemon calls this child from now on."""


class Signal(HostMessage, frozen=True):
    """Send a signal to the child itself. Nothing happens if it is not the living one."""

    number: int
    signal: int


Command = Configure | Fork | Signal


class Ready(HostMessage, frozen=True):
    """Everything is imported: children can be forked."""

    seconds: float
    """How long the imports took."""


class Failed(HostMessage, frozen=True):
    """The host could not import what it was told to, or met a fault of its own, and ends."""

    module: str | None
    """The module that was being imported, or None."""
    error_type: str
    text: str
    traceback: str


class Forked(HostMessage, frozen=True):
    number: int
    pid: int


class Refused(HostMessage, frozen=True):
    """No child was forked, for the reason given."""

    number: int
    text: str


class Exited(HostMessage, frozen=True):
    """The child has ended, and what it left behind has been killed before this was sent."""

    number: int
    pid: int
    status: int
    """As waitpid(2) gives it."""
    left: list[int]
    """Processes that the kernel holds although SIGKILL is pending."""


Report = Ready | Failed | Forked | Refused | Exited
