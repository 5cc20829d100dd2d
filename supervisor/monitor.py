"""Monitors and links: who is told, and who goes down too, when an actor ends.

Semantics: ``erlang:monitor/2`` and ``erlang:link/1``. A deliberate difference: a :class:`~supervisor.ref.Ref` survives
restarts, and so does a monitor on it, which reports every end of every incarnation until it is taken off. It is owned
by the incarnation that asked for it: a restarted watcher watches nothing until it asks again.
"""

from __future__ import annotations

from dataclasses import dataclass

from supervisor.reasons import Reason


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


SystemMessage = Down | Inject
