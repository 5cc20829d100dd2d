"""The process host: it forks process children, keeps whatever they start, and ends it all.

Run as ``python -P -m supervisor.host FD PID``, never imported. One host serves one child specification, or a group that
falls as one, and outlives the incarnations, so that a crashed child is back as fast as a fork: everything heavy is
imported already. It stays small, with a single Python thread, so that forking is safe.

The host is the subreaper of everything below it: a process that a child starts cannot escape by leaving the session or
by losing its parents. When a child has ended, what is left of its descendants is killed before the exit is reported;
when the daemon's end of the socketpair closes, everything is killed and the host ends. If the host itself is killed,
its children die by PDEATHSIG, and the daemon finds the rest by the tag in their environment (see ``custody``).

The children of a group are subreapers, too: an orphan stays below the child that it comes from for as long as that one
lives. So an orphan that has come to the host belonged to a child that has ended, and is killed, and no sibling's is.
"""

from __future__ import annotations

import faulthandler
import gc
import importlib
import os
import select
import signal
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from types import FrameType, TracebackType

import msgspec

from supervisor import child, custody
from supervisor.host_protocol import (
    LARGEST,
    Command,
    Configure,
    Exited,
    Failed,
    Fork,
    Forked,
    Ready,
    Refused,
    Report,
    Signal,
)

SWEEP_LIMIT = 1.5
"""Seconds until descendants that will not die are reported as held by the kernel."""

_DEVICES = ("/dev/nvidia", "/dev/kfd", "/dev/dri/", "/dev/accel")

_decode = msgspec.msgpack.Decoder(Command).decode
_encode = msgspec.msgpack.Encoder().encode


class Host:
    """A single-threaded loop over two descriptors: commands of the daemon, and the wake-up of SIGCHLD."""

    def __init__(self, commands: socket.socket, daemon: int) -> None:
        self._commands = commands
        self._pid = os.getpid()
        self._daemon = daemon
        self._importing: str | None = None
        self._configuration: Configure | None = None
        self._children: dict[int, int] = {}
        """The pids of the children that are not known to have ended, by number."""
        self._ended: list[tuple[int, int, int]] = []
        """Children that have ended, as (number, pid, status), and were not reported yet."""
        self._wake_out, self._wake_in = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)

    def serve(self) -> tuple[socket.socket, Configure] | None:
        """Obey until the daemon is gone, then kill every descendant and return None.

        In a forked child it returns at once, with the child's end of the link.
        """
        sys.excepthook = self._report_fault
        signal.pthread_sigmask(signal.SIG_SETMASK, ())  # a mask is inherited, and would hide the ends of children
        custody.become_subreaper()
        custody.die_with_parent(self._daemon)  # for as long as imports keep this loop from noticing the end of file
        for ignored in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGPIPE, signal.SIGUSR1):
            signal.signal(ignored, signal.SIG_IGN)  # a stop is the daemon's to order, over the socketpair
        signal.set_wakeup_fd(self._wake_in, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, _ignore)
        poll = select.poll()
        poll.register(self._commands, select.POLLIN)
        poll.register(self._wake_out, select.POLLIN)
        while True:
            ready = {fd for fd, _ in poll.poll()}
            if self._wake_out in ready:
                os.read(self._wake_out, 4096)
                self._reap()
                self._report_exits()
            if self._commands.fileno() in ready:
                command, link = self._receive()
                match command:
                    case None:
                        self._end_descendants(60.0)
                        return None
                    case Configure():
                        self._configure(command)
                    case Fork(number=number):
                        if link is None:
                            self._report(Refused(number, "no descriptor is left in the process host"))
                        elif self._fork(number, link):
                            assert self._configuration is not None  # _fork refuses without
                            return link, self._configuration
                    case Signal():
                        if (pid := self._children.get(command.number)) is not None:
                            os.kill(pid, command.signal)  # unreaped, so the number is still its own

    # ---------------------------------------------------------------- commands

    def _receive(self) -> tuple[Command | None, socket.socket | None]:
        try:
            data, descriptors, _, _ = socket.recv_fds(self._commands, LARGEST, 1)
        except ConnectionResetError:  # the daemon died with a report of ours unread
            return None, None
        link = socket.socket(fileno=descriptors[0]) if descriptors else None
        if link is not None:
            link.set_inheritable(False)  # it came as it is over there; what the child execs must not keep it open
        return (_decode(data) if data else None), link

    def _configure(self, command: Configure) -> None:
        begun = time.monotonic()
        sys.path[:] = command.path
        gc.disable()  # what modules hold stays: to look through it again and again took a quarter of the time
        for name in command.preload:
            self._importing = name
            importlib.import_module(name)
            if threading.active_count() > 1:
                names = ", ".join(sorted(thread.name for thread in threading.enumerate()[1:]))
                raise RuntimeError(f"importing {name} started threads ({names}): forking would not be safe")
            if devices := _open_devices():
                raise RuntimeError(f"importing {name} opened {', '.join(devices)}: a device does not survive a fork")
        self._importing = None
        child.warm_up(command.backend)
        gc.enable()
        gc.collect()
        gc.freeze()  # or the first collection in a child would copy every page that holds an object
        self._configuration = command
        custody.outlive_parent()
        self._report(Ready(time.monotonic() - begun))

    def _fork(self, number: int, link: socket.socket) -> bool:
        """Fork the child. Return True in it, False in the host, whether or not there is one."""
        if refusal := self._why_not():
            link.close()
            self._report(Refused(number, refusal))
            return False
        pid = os.fork()
        if pid == 0:
            custody.die_with_parent(self._pid)
            self._become_child()
            return True
        link.close()
        self._children[number] = pid
        self._report(Forked(number, pid))
        return False

    def _why_not(self) -> str:
        if self._configuration is None:
            return "the host has not been configured"
        if self._children and not self._configuration.shared:
            return f"the child before it, PID {next(iter(self._children.values()))}, has not ended"
        if left := self._end_orphans(SWEEP_LIMIT):
            held = ", ".join(f"PID {pid}" for pid in left)
            return f"held by {held}: killed, but the kernel has not let go of it"
        return ""

    def _become_child(self) -> None:
        """Undo what the host set up for itself, and take a session of its own: Ctrl-C reaches only the daemon."""
        if self._configuration is not None and self._configuration.shared:
            custody.become_subreaper()
        os.setsid()
        sys.excepthook = sys.__excepthook__
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        signal.signal(signal.SIGHUP, signal.SIG_DFL)
        for stop in (signal.SIGINT, signal.SIGTERM):
            # A handler that does nothing, since SIG_IGN would be passed on through exec to all that the child starts.
            signal.signal(stop, _ignore)
            signal.siginterrupt(stop, False)
        faulthandler.register(signal.SIGUSR1, all_threads=True)
        os.close(self._wake_out)
        os.close(self._wake_in)
        self._commands.close()

    # ---------------------------------------------------------------- ends

    def _reap(self) -> bool:
        """Collect every exit status there is. All children of this process are its own to collect.

        False: nothing is left below it, for a subreaper inherits whatever loses its parent.
        """
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return False
            if pid == 0:
                return True
            for number, its in self._children.items():
                if its == pid:
                    del self._children[number]
                    self._ended.append((number, pid, status))
                    break

    def _report_exits(self) -> None:
        while self._ended:
            number, pid, status = self._ended.pop(0)
            self._report(Exited(number, pid, status, self._end_orphans(SWEEP_LIMIT)))

    def _end_orphans(self, limit: float) -> list[int]:
        """Kill what children have left behind that have ended. Return what will not go."""
        living = self._children.values()
        if not self._reap() or custody.children() <= {*living}:  # nearly always; reading all of /proc takes long
            return []
        return self._end_all(limit, lambda: custody.descendants(self._pid, living))

    def _end_descendants(self, limit: float) -> list[int]:
        """Kill everything below this process. Return what will not go."""
        return self._end_all(limit, lambda: custody.descendants(self._pid)) if self._reap() else []

    def _end_all(self, limit: float, find: Callable[[], list[custody.Pid]]) -> list[int]:
        left = custody.end_all(find, limit, self._reap)
        self._reap()
        return [pid.number for pid in left]

    # ---------------------------------------------------------------- reports

    def _report(self, report: Report) -> None:
        try:
            self._commands.send(_encode(report))
        except (BrokenPipeError, ConnectionResetError):
            return  # the daemon is gone: the end of file is next in the queue

    def _report_fault(self, kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        """Tell the daemon why this host ends: an import that failed must never pass in silence."""
        lines = "".join(traceback.format_exception(kind, error, trace))
        self._report(Failed(self._importing, kind.__qualname__, str(error)[:4096], lines[-65536:]))
        self._end_descendants(SWEEP_LIMIT)


def _ignore(number: int, frame: FrameType | None) -> None:
    """Handle a signal by doing nothing; the wake-up descriptor has noticed it."""


def _open_devices() -> list[str]:
    """Return the accelerator devices that this process holds open."""
    found: set[str] = set()
    for descriptor in Path("/proc/self/fd").iterdir():
        try:
            target = str(descriptor.readlink())
        except FileNotFoundError:  # the descriptor of the listing itself
            continue
        if target.startswith(_DEVICES):
            found.add(target)
    return sorted(found)


def main() -> None:
    """Serve the daemon named on the command line by descriptor and pid; in a forked child, run the actor."""
    faulthandler.enable()
    descriptor, daemon = map(int, sys.argv[1:])
    forked = Host(socket.socket(fileno=descriptor), daemon).serve()
    if forked is not None:
        link, configuration = forked
        child.main(link, configuration.backend)


if __name__ == "__main__":
    main()
