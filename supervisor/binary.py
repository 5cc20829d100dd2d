"""A tree as a program: signals from the first line to the exit, the notify socket, the root deadline, the exit code.

The handlers are plain ones of ``signal.signal``, installed before anything is built and kept until the process ends: a
receiver of the event loop would give them back when its scope closes, and a signal in the last tenth of a second
would then end the process by its default action. A handler only counts and writes one byte; a task reads it.
"""

from __future__ import annotations

import faulthandler
import importlib
import os
import signal
import sys
import threading
from collections.abc import Callable
from types import FrameType
from typing import NoReturn

import anyio

from supervisor.boot import STOP_WITHIN, Boot, Deadline
from supervisor.clock import SystemClock
from supervisor.errors import BootRefused, SpecError, StopIncomplete, TreeStartFailed
from supervisor.host_protocol import Backend
from supervisor.hosting import kill_descendants
from supervisor.notify import Notifier
from supervisor.spec import SupervisorSpec
from supervisor.stacks import dump_tasks, dump_threads, say
from supervisor.tree import Tree, open_tree

DEFAULT_APPLICATION = "actors.daemon:tree"

LOOK_EVERY = 1.0
"""Seconds between two looks whether the tree has begun to stop."""
EXTENSION = 30.0
"""Seconds more that systemd is asked for while the tree starts or stops; a look asks again."""

EXIT_FAILED = 1
EXIT_MISUSE = 2
EXIT_STUCK = 70
"""EX_SOFTWARE: the stop did not end in time."""
EXIT_CONFIGURATION = 78
"""EX_CONFIG."""

USAGE = """\
usage: python -P -m supervisor [--app MODULE:FUNCTION] [--backend asyncio|trio] [ARGUMENT ...]

Run the tree that FUNCTION(boot) returns, until it ends. The default application is actors.daemon:tree.
The first SIGTERM or SIGINT stops it gently, the second at once, the third without another thought.
SIGUSR1 shows what every thread and task is doing; SIGQUIT what every thread is, also while the event loop is blocked.
"""

Application = Callable[[Boot], SupervisorSpec]

_STOPS = (signal.SIGTERM, signal.SIGINT)
_DELIVERED = (*_STOPS, signal.SIGHUP)


class Binary:
    """One run of one application."""

    def __init__(self, arguments: list[str], backend: Backend) -> None:
        # Before there is another thread: all that follow inherit the mask, so the signal waits for the one that asks.
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGQUIT])
        self._wake_out, self._wake_in = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self._deadline = Deadline(STOP_WITHIN, self._stuck)
        self._boot = Boot(arguments, backend, SystemClock(), self._deadline)
        self._notifier = Notifier.from_environment()
        self._starting: anyio.CancelScope | None = None  # made on the event loop, which it needs
        self._tree: Tree | None = None

    def install_signals(self) -> None:
        """Take the signals, whatever the parent had made of them (an ignored SIGINT is inherited, as is a mask)."""
        for number in (*_DELIVERED, signal.SIGUSR1):
            signal.signal(number, self._on_signal)
        faulthandler.enable()
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [*_DELIVERED, signal.SIGUSR1])
        threading.Thread(target=self._show_threads, name="stacks", daemon=True).start()

    def run(self, application: Application) -> int:
        """Run until the tree has ended and return the exit code."""
        return anyio.run(self._serve, application, backend=self._boot.backend)

    # ---------------------------------------------------------------- on the event loop

    async def _serve(self, application: Application) -> int:
        code = 0
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._read_signals, name="signals")
            tasks.start_soon(self._keep_watch, name="watch")
            with anyio.CancelScope() as self._starting:
                code = await self._run_tree(application)
            tasks.cancel_scope.cancel()
        return code

    async def _run_tree(self, application: Application) -> int:
        """Run the tree to its end. What refuses it is one line on stderr and an exit code, without a traceback."""
        try:
            async with open_tree(application(self._boot), clock=self._boot.clock) as tree:
                self._tree = tree
                self._notifier.send("READY=1", "STATUS=running")
                return (await tree.wait()).exit_code
        except BootRefused as refused:
            return _complain(refused.message, refused.exit_code)
        except SpecError as error:
            return _complain(f"the tree makes no sense: {error}", EXIT_CONFIGURATION)
        except TreeStartFailed as failed:
            return _complain(f"the tree did not start: {failed}", EXIT_FAILED)
        except StopIncomplete as incomplete:
            say(f"stokehold: {incomplete}\n")
            self._stuck()

    async def _read_signals(self) -> None:
        while True:
            await anyio.wait_readable(self._wake_out)
            numbers = os.read(self._wake_out, 64)
            if signal.SIGUSR1 in numbers:
                dump_threads()
                dump_tasks()
            for number in numbers.replace(bytes([signal.SIGUSR1]), b""):
                if number in _STOPS:
                    self._stop_gently(number)
                else:
                    self._boot.deliver(number)

    def _stop_gently(self, number: int) -> None:
        self._notifier.send("STOPPING=1", f"STATUS=stopping ({signal.Signals(number).name})")
        if self._tree is None:
            if self._starting is not None:
                self._starting.cancel()  # what has started so far is stopped in reverse, as at any other time
        elif self._boot.signals_wanted:
            self._boot.deliver(number)
        else:
            self._tree.request_shutdown(signal.Signals(number).name)

    async def _keep_watch(self) -> None:
        """Notice a stop that no signal began; tell systemd that a long start or stop goes on, and the loop turns."""
        every = min(LOOK_EVERY, (self._notifier.watchdog or LOOK_EVERY) / 2)
        while True:
            if self._tree is not None and self._tree.stopping:
                self._deadline.begin()
            if self._tree is None or self._tree.stopping:
                self._notifier.send(f"EXTEND_TIMEOUT_USEC={EXTENSION * 1_000_000:.0f}")
            if self._notifier.watchdog is not None:
                self._notifier.send("WATCHDOG=1")
            await anyio.sleep(every)

    # ---------------------------------------------------------------- in a signal handler, or on a thread of its own

    def _show_threads(self) -> None:
        """Show the threads at each SIGQUIT, also while the event loop is blocked.

        Not by ``faulthandler.register``: its handler runs in the midst of whatever the thread did, on a small stack
        that it shares with every other handler, and a few signals in quick succession ended the process by SIGSEGV.
        """
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        while True:
            signal.sigwait([signal.SIGQUIT])
            dump_threads()

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if number in _STOPS:
            self._boot.stop_count += 1
            self._deadline.begin()
            if self._boot.stop_count > 2:
                os._exit(128 + number)
            if self._boot.stop_count == 2:
                say("stokehold: ending at once\n")
                kill_descendants()
                os._exit(128 + number)
        try:
            os.write(self._wake_in, bytes([number]))
        except BlockingIOError:
            return  # thousands of signals are waiting to be read: one more or less says nothing new

    def _stuck(self) -> NoReturn:
        say("stokehold: the stop has taken too long; these are the stacks\n")
        dump_threads()
        kill_descendants()
        os._exit(EXIT_STUCK)


def _complain(message: str, code: int) -> int:
    say(f"stokehold: {' '.join(message.split())}\n")
    return code


def _parse(arguments: list[str]) -> tuple[str, Backend, list[str]]:
    """Return application, backend, and what is left for the application. Misuse ends the process with 2."""
    application, backend = DEFAULT_APPLICATION, "asyncio"
    rest = list(arguments)
    while rest and rest[0].startswith("--"):
        name, equals, value = rest[0].partition("=")
        if name == "--help":
            sys.stdout.write(USAGE)
            sys.exit(0)
        if name not in ("--app", "--backend"):
            break
        rest.pop(0)
        if not equals:
            value = rest.pop(0) if rest else ""
        if name == "--app":
            application = value
        else:
            backend = value
    module, colon, function = application.partition(":")
    if not (module and colon and function.isidentifier()):
        sys.exit(_complain(f"--app takes MODULE:FUNCTION, not {application!r}", EXIT_MISUSE))
    if backend not in ("asyncio", "trio"):
        sys.exit(_complain(f"--backend takes asyncio or trio, not {backend!r}", EXIT_MISUSE))
    return application, "trio" if backend == "trio" else "asyncio", rest


def _find(application: str) -> Application:
    module, _, function = application.partition(":")
    try:
        found = getattr(importlib.import_module(module), function, None)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module}.".startswith(f"{error.name}."):
            raise  # the application is there; what it imports is not
        sys.exit(_complain(f"--app {application}: there is no module {error.name!r}", EXIT_CONFIGURATION))
    if not callable(found):
        sys.exit(_complain(f"--app {application}: the module has no such function", EXIT_CONFIGURATION))
    return found  # type: ignore[no-any-return]


def main(arguments: list[str]) -> NoReturn:
    """Run the program that the command line asks for, and exit with its code."""
    application, backend, rest = _parse(arguments)
    binary = Binary(rest, backend)
    binary.install_signals()
    sys.exit(binary.run(_find(application)))
