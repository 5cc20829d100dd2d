"""Monitors and links: who is told, and who goes down too, when an actor ends; and all else that goes past a mailbox.

Semantics: ``erlang:monitor/2`` and ``erlang:link/1``. A deliberate difference: a :class:`~supervisor.ref.Ref` survives
restarts, and so does a monitor on it, which reports every end of every incarnation until it is taken off. It is owned
by the incarnation that asked for it: a restarted watcher watches nothing until it asks again.
"""

from __future__ import annotations

from dataclasses import dataclass

from protocol.messages.common import Request
from supervisor.reasons import Reason
from supervisor.reply import Pending


@dataclass(frozen=True, slots=True)
class Down:
    """An incarnation of a monitored actor has fully ended.

    ``incarnation`` counts from 1. Of an actor that had ended for good when the monitor was set it is the last one,
    with its reason, as far as that is remembered; else 0 (OTP says ``noproc`` in both cases).
    """

    name: str
    reason: Reason
    incarnation: int


@dataclass(frozen=True, slots=True)
class Inject:
    """A system message: raise this error as if a handler had (the fault port)."""

    error: Exception


class Suspend(Request[None], frozen=True):
    """An order: take system messages and handle nothing else from now on (``sys:suspend/1``)."""


class Resume(Request[None], frozen=True):
    """An order: handle messages again (``sys:resume/1``)."""


@dataclass(frozen=True, slots=True)
class Trace:
    """A system message: begin to tell of each message, or tell no more."""

    on: bool


Order = Pending[None]
"""A :class:`Suspend` or :class:`Resume` on its way; settled when it is obeyed, or cannot be."""

SystemMessage = Down | Inject | Trace | Order
