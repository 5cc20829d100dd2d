"""The daemon's end of a process host: start it, have it fork, learn how its children ended, and outlive its death.

There is no background task: of those who wait for a report one reads them, for all. What a host did not do, because it
was killed or is stopped, is done here by the tag that everything under it carries.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import socket
import subprocess
import sys
import sysconfig
from collections.abc import Callable, Mapping
from pathlib import Path

import anyio
import anyio.to_thread
import msgspec

from supervisor import custody
from supervisor.host_protocol import (
    LARGEST,
    Backend,
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

_log = logging.getLogger("supervisor")

END_LIMIT = 2.0
"""Seconds within which a host whose socket was closed has killed everything and ended; then it is killed itself."""

_decode = msgspec.msgpack.Decoder(Report).decode
_encode = msgspec.msgpack.Encoder().encode
_living: set[ProcessHost] = set()


class HostFailed(Exception):
    """The host could not give a child: an import failed, or it ended. The child has not been started."""

    def __init__(self, error_type: str, text: str, trace: str = "") -> None:
        super().__init__(text)
        self.error_type = error_type
        self.text = text
        self.trace = trace


class ProcessHost:
    """One host process, started when the first child is wanted and again when it has died.

    Args:
        preload: modules that the host imports before it forks.
        environment: variables set for the host and everything below it, on top of this process's own.
        shared: whether it may have several children at a time.
    """

    def __init__(self, preload: tuple[str, ...], environment: Mapping[str, str], *, shared: bool = False) -> None:
        self._preload = preload
        self._environment = dict(environment)
        self._shared = shared
        self._process: subprocess.Popen[bytes] | None = None
        self._socket: socket.socket | None = None
        self._tag = ""
        self._ready = False
        self._numbers = 0
        self._forking = anyio.Lock()
        self._unended: set[int] = set()
        """Children whose end has not been reported."""
        self._given_up: set[int] = set()
        """Those of them whose start was cancelled: nobody else waits for their end."""
        self._answers: dict[int, Forked | Refused] = {}
        self._ends: dict[int, Exited] = {}
        self._reading = False
        self._news = anyio.Event()
        """Set when a report has been read, or when there is nobody any more who reads."""
        self._failure = HostFailed("HostLost", "the process host has not been started")

    @property
    def pid(self) -> int | None:
        """The host's pid, or None while there is none."""
        return self._process.pid if self._process else None

    async def fork(self) -> tuple[socket.socket, Forked]:
        """Have a child forked, starting the host if there is none. Return our end of its link.

        Must be called on the thread of the event loop: the host is bound to the thread that starts it. Cancelled, it
        leaves the host importing, to be ready for the next try, unless that is stopped; a child that was forked already
        dies.

        Raises:
            HostFailed: an import failed (which, and the traceback of the host), the host ended, or processes that
                an earlier child left behind are still held by the kernel.
        """
        async with self._forking:
            if self._process is None:
                await self._start()
            await self.settle()
            try:
                await self._until(lambda: self._ready or self._process is None)
            finally:
                if not self._ready and self._process is not None and custody.stopped(self._process.pid):
                    self.kill()  # it would never be ready, however often it were tried
            if self._process is None:
                raise self._failure
            self._numbers += 1
            number = self._numbers
            with contextlib.ExitStack() as undo:
                ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
                undo.callback(ours.close)
                undo.callback(self._give_up, number)
                ours.setblocking(False)
                with theirs:
                    self._send(Fork(number), theirs)
                self._unended.add(number)
                await self._until(lambda: number in self._answers or number not in self._unended)
                match self._answers.pop(number, None):
                    case Forked() as forked:
                        undo.pop_all()
                        return ours, forked
                    case Refused(text=text):
                        raise HostFailed("Refused", text)
                raise self._failure

    def _give_up(self, number: int) -> None:
        self._answers.pop(number, None)
        self._ends.pop(number, None)
        if number in self._unended:
            self._given_up.add(number)
            self.signal(number, signal.SIGKILL)

    async def settle(self, number: int | None = None) -> None:
        """End this child and all whose start was cancelled. A host that does not obey is killed."""
        for one in [*self._given_up] if number is None else [*self._given_up, number]:

            def ended(one: int = one) -> bool:
                return one not in self._unended

            if not ended():
                self.signal(one, signal.SIGKILL)
            with anyio.move_on_after(END_LIMIT):
                await self._until(ended)
            if not ended():  # the host is stopped, or wedged: the end of file on its socket comes next
                self.kill()
                await self._until(ended)
            self._ends.pop(one, None)
            self._given_up.discard(one)

    async def exited(self, number: int) -> Exited:
        """Wait until this child has ended and nothing below it is left, whoever had to see to it."""
        await self._until(lambda: number not in self._unended)
        return self._ends.pop(number)

    def signal(self, number: int, what: int) -> None:
        """Send a signal to this child through its host. Does nothing if either is gone."""
        if self._socket is not None:
            self._send(Signal(number, what))

    def kill(self) -> None:
        """SIGKILL the host itself and all that descends from it. For one that no longer obeys."""
        if self._process is not None:
            try:
                below = custody.descendants(self._process.pid)
            except OSError:  # no descriptor left to read /proc with; the child dies with the host, by PDEATHSIG
                below = []
            self._process.kill()
            for pid in below:
                custody.send(pid, signal.SIGKILL)

    async def end(self) -> None:
        """Close the host: it kills every descendant and ends, and what it could not do is done here."""
        # While it imports, it listens to nobody, and has no descendants.
        await self._bury(END_LIMIT if self._ready else 0.0)

    async def _bury(self, patience: float) -> None:
        if self._socket is not None:
            sock, self._socket, self._ready = self._socket, None, False  # from now on nobody tells it anything
            anyio.notify_closing(sock)
            sock.close()
            with anyio.CancelScope(shield=True):
                with anyio.move_on_after(patience):
                    await self._reaped()
                self.kill()
                await self._reaped()
                left = await self._end_tagged()
            self._process = None
            for number in self._unended:  # by PDEATHSIG, with their host
                self._ends[number] = Exited(number, 0, signal.SIGKILL, left)
            self._unended.clear()
            _living.discard(self)

    async def _end_tagged(self) -> list[int]:
        """Kill whatever the host has left; return what will not go."""
        try:
            left = await anyio.to_thread.run_sync(custody.end_all, lambda: custody.tagged(self._tag), END_LIMIT)
        except OSError as error:  # no descriptor left to read /proc with; the next start looks again, or does not start
            _log.warning("cannot look for what the process host has left: %s", error)
            return []
        return [pid.number for pid in left]

    def disown(self) -> None:
        """Close our copy of the socket without a word to the host. For a forked copy of this process."""
        if self._socket is not None:
            self._socket.close()

    # ---------------------------------------------------------------- the process

    async def _start(self) -> None:
        if left := await anyio.to_thread.run_sync(self._end_leftovers):
            held = ", ".join(f"PID {pid.number}" for pid in left)
            raise HostFailed("Held", f"held by {held}: killed, but the kernel has not let go of it")
        with contextlib.ExitStack() as undo:
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            undo.callback(ours.close)
            ours.setblocking(False)
            self._tag = custody.new_tag()
            with theirs:
                self._process = self._spawn(theirs)
            undo.pop_all()
        self._socket = ours
        self._ready = False
        _living.add(self)
        self._send(Configure([str(path) for path in sys.path], list(self._preload), _running_backend(), self._shared))

    def _spawn(self, theirs: socket.socket) -> subprocess.Popen[bytes]:
        """Start the host. On the loop's own thread, to which it is bound; it takes about a millisecond."""
        return subprocess.Popen(
            [sys.executable, "-P", "-m", "supervisor.host", str(theirs.fileno()), str(os.getpid())],
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            stdout=2,  # data goes to our standard output, and what children print is not data
            start_new_session=True,
            env=self._child_environment(),
        )

    def _end_leftovers(self) -> list[custody.Pid]:
        """Kill what an earlier host of ours, or of a daemon that is dead, has left. Return what will not go."""
        return custody.end_all(lambda: [*custody.tagged(self._tag), *custody.abandoned()], END_LIMIT)

    def _child_environment(self) -> dict[str, str]:
        environment = {**os.environ, **self._environment, custody.TAG: self._tag}
        package = Path(__file__).resolve().parent.parent
        installed = {Path(path).resolve() for path in (sysconfig.get_path("purelib"), sysconfig.get_path("platlib"))}
        if package not in installed:  # run from a checkout: -P leaves the current folder out
            paths = [str(package), *environment.get("PYTHONPATH", "").split(os.pathsep)]
            environment["PYTHONPATH"] = os.pathsep.join(path for path in paths if path)
        return environment

    async def _reaped(self) -> None:
        """Wait until the host has ended, and collect its exit status."""
        if self._process is None or self._process.poll() is not None:
            return
        try:
            fd = os.pidfd_open(self._process.pid)  # unreaped until we reap it, so the number is its own
        except OSError:  # no descriptor is left, or somebody else's handling of SIGCHLD has reaped it
            await anyio.to_thread.run_sync(self._process.wait, abandon_on_cancel=True)
            return
        try:
            await anyio.wait_readable(fd)
        finally:
            anyio.notify_closing(fd)
            os.close(fd)
        self._process.wait()

    # ---------------------------------------------------------------- reports

    async def _until(self, done: Callable[[], bool]) -> None:
        """Read reports until ``done()``, or wait for what another task reads: a socket has one reader at a time."""
        while not done():
            if self._reading:
                await self._news.wait()
                continue
            self._reading = True
            try:
                await self._read()
            finally:  # also when cancelled: the next one goes on reading
                self._reading = False
                self._news.set()
                self._news = anyio.Event()

    async def _read(self) -> None:
        """Take the next report. A host that says that it failed, or is gone, is buried."""
        report = await self._receive()
        match report:
            case Ready():
                self._ready = True
            case Forked(number=number):
                if number not in self._given_up:
                    self._answers[number] = report
            case Refused(number=number):
                self._unended.discard(number)
                if number not in self._given_up:
                    self._answers[number] = report
            case Exited(number=number):
                self._unended.discard(number)
                self._ends[number] = report
            case Failed(module=module):
                await self._bury(END_LIMIT)
                where = f"importing {module}" if module else "in the process host"
                self._failure = HostFailed(report.error_type, f"{where}: {report.text}", report.traceback)
            case None:
                process, importing = self._process, not self._ready and self._preload
                await self._bury(END_LIMIT)
                status = process.returncode if process else None
                when = f" while importing {', '.join(self._preload)}" if importing else ""
                self._failure = HostFailed("HostLost", f"the process host ended with status {status}{when}")

    # ---------------------------------------------------------------- datagrams

    def _send(self, command: Command, link: socket.socket | None = None) -> None:
        assert self._socket is not None
        try:
            if link is None:
                self._socket.send(_encode(command))
            else:
                socket.send_fds(self._socket, [_encode(command)], [link.fileno()])
        except (BrokenPipeError, ConnectionResetError, BlockingIOError):
            return  # gone or wedged: the reader learns the first by the end of file, the second by its time limit

    async def _receive(self) -> Report | None:
        assert self._socket is not None
        while True:
            try:
                data = self._socket.recv(LARGEST)
            except BlockingIOError:
                await anyio.wait_readable(self._socket)
            except ConnectionResetError:
                return None
            else:
                return _decode(data) if data else None


def _running_backend() -> Backend:
    trio = sys.modules.get("trio")
    return "trio" if trio is not None and trio.lowlevel.in_trio_run() else "asyncio"


def kill_descendants() -> None:
    """SIGKILL everything below every process host of this process, at once. Safe in a signal handler.

    The hosts themselves are left: this process is about to exit, and they finish what was missed at the end of file.
    """
    with contextlib.suppress(OSError):  # no descriptor is left to find them with
        for host in tuple(_living):
            if host.pid is not None:
                for pid in custody.descendants(host.pid):
                    custody.send(pid, signal.SIGKILL)


def _let_go() -> None:
    """In a process that was forked without an exec: close what is the parent's, or no host would learn of its death."""
    for host in _living:
        host.disown()


os.register_at_fork(after_in_child=_let_go)
