"""What every thread and every task of this process is doing right now, as text."""

from __future__ import annotations

import contextlib
import faulthandler
import os
import select
import traceback
from types import AsyncGeneratorType, CoroutineType, FrameType, GeneratorType
from typing import Any

import anyio

PATIENCE = 0.2
"""Seconds to wait for a reader of standard error that has fallen behind. What it then does not take is lost."""


def say(text: str) -> None:
    """Write to standard error, whatever has become of it. Works in a signal handler.

    A stop must not be held up because the disk behind it is full, or nobody reads the pipe any more.
    """
    rest = memoryview(text.encode(errors="replace"))
    poll = select.poll()
    poll.register(2, select.POLLOUT)
    with contextlib.suppress(OSError):
        while rest and poll.poll(PATIENCE * 1000):
            rest = rest[os.write(2, rest[: select.PIPE_BUF]) :]  # so much at once never blocks


def dump_threads() -> None:
    """Write the stack of every thread to standard error. Works in a signal handler and from any thread."""
    with contextlib.suppress(OSError), os.fdopen(os.memfd_create("stacks"), "rb") as file:
        faulthandler.dump_traceback(file, all_threads=True)
        file.seek(0)
        say(file.read().decode(errors="replace"))


def dump_tasks() -> None:
    """Write the stack of every task of the running event loop to standard error."""
    text = "\n".join(
        f"Task {task.name!r}:\n{''.join(traceback.StackSummary.from_list(_frames(task.coro)).format())}"
        for task in anyio.get_running_tasks()
    )
    say(text)


def _frames(awaited: Any) -> list[traceback.FrameSummary]:
    """Follow what a coroutine waits for down to what it really waits for."""
    found: list[traceback.FrameSummary] = []
    while awaited is not None:
        match awaited:
            case CoroutineType():
                frame, awaited = awaited.cr_frame, awaited.cr_await
            case AsyncGeneratorType():
                frame, awaited = awaited.ag_frame, awaited.ag_await
            case GeneratorType():
                frame, awaited = awaited.gi_frame, awaited.gi_yieldfrom
            case _:
                return found
        if isinstance(frame, FrameType):
            code = frame.f_code
            found.append(traceback.FrameSummary(code.co_filename, frame.f_lineno, code.co_qualname))
    return found
