"""What every thread and every task of this process is doing right now, as text."""

from __future__ import annotations

import faulthandler
import os
import traceback
from types import AsyncGeneratorType, CoroutineType, FrameType, GeneratorType
from typing import Any

import anyio


def dump_threads(fd: int = 2) -> None:
    """Write the stack of every thread to a descriptor. Works in a signal handler and from any thread."""
    faulthandler.dump_traceback(file=fd, all_threads=True)


def dump_tasks(fd: int = 2) -> None:
    """Write the stack of every task of the running event loop to a descriptor."""
    text = "\n".join(
        f"Task {task.name!r}:\n{''.join(traceback.StackSummary.from_list(_frames(task.coro)).format())}"
        for task in anyio.get_running_tasks()
    )
    os.write(fd, text.encode(errors="replace"))


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
