"""InboxWatcher: notices files, waits until they have settled, checks them, and hands them to QueueManager.

The directory is the truth. What inotify says is only a hint to look at once: an event may be lost (its queue overflows,
the folder is deleted and made anew, the file system is a remote one), so whatever it says, everything is looked at; and
when it says nothing, every ``inbox.rescan`` seconds.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

import anyio
from anyio import from_thread, to_thread
from inotify_simple import INotify, flags

from actors.board import Board
from actors.inbox.handover import Candidate, Unread, judge
from actors.inbox.scan import Found, scan
from actors.inbox.settling import Settling
from actors.inbox.validation import Stamp
from actors.settings_store import ConfigStore
from protocol.home import Home
from protocol.inbox_names import read_name
from protocol.messages.common import Done, Message, Trouble
from protocol.messages.inbox import QuietScan, Rescan
from protocol.messages.queue import Accept, Accepted, QuietReport, Refuse
from protocol.messages.trainer import ConfigChanged
from supervisor import Actor, CallFailed, HandlerFailed, MailboxFull, Pending, Reason, Reply, on, on_deferred
from supervisor.durable import Disk

NAME = "InboxWatcher"
QUEUE = "QueueManager"

PAUSE: Final = 0.1
"""Least seconds between two looks, so that a storm of events costs a bounded share of a core."""

PATIENCE: Final = 60.0
"""Seconds that QueueManager is given to take a file."""

RETRY: Final = (1.0, 60.0)
"""Seconds until a file that could not be handed over is tried again: at first, doubling, and at most."""

NOT_AS_READ: Final = "not_as_read"
"""QueueManager's refusal of a file that is gone, is not what was read, or is no regular file."""

BATCH_FILES: Final = 64
BATCH_BYTES: Final = 16 << 20
"""Small files are read and handed over together, so that QueueManager can commit them together."""

HINTS: Final = (
    flags.CLOSE_WRITE
    | flags.MOVED_TO
    | flags.CREATE
    | flags.DELETE
    | flags.MOVED_FROM
    | flags.DELETE_SELF
    | flags.MOVE_SELF
    | flags.ONLYDIR
    | flags.EXCL_UNLINK
)


class _Look(Message, frozen=True):
    """It is time to look."""


class InboxWatcher(Actor):
    """Whatever may take long happens in one task beside the messages, and there in a worker thread."""

    def __init__(self, home: Home, store: ConfigStore, disk: Disk, board: Board) -> None:
        self._inbox = home.inbox
        self._store = store
        self._disk = disk
        self._board = board
        self._settling: Settling[Path] = Settling()
        self._left: dict[Path, tuple[Stamp, str]] = {}
        """Files that are over although they still stand there, and why; until they are changed or taken away."""
        self._retry: dict[Path, tuple[float, float]] = {}
        """Files that could not be handed over: when to try again, and after how long the time after that."""
        self._quiet_wanted: list[int] = []
        self._rescans: list[Reply[Done]] = []
        self._in_hand = 0

    async def on_start(self) -> None:
        self._wake = anyio.Event()
        self.context.spawn(self._work, name="inbox")

    async def on_stop(self, reason: Reason) -> None:
        self._board.troubles.pop(NAME, None)

    def summary(self) -> Mapping[str, object]:
        return {"files": self._board.inbox_files, "in_hand": self._in_hand, "retrying": len(self._retry)}

    @on(_Look)
    async def _look(self, message: _Look) -> None:
        self._wake.set()

    @on(ConfigChanged)
    async def _config_changed(self, message: ConfigChanged) -> None:
        self._wake.set()

    @on(QuietScan)
    async def _quiet_scan(self, message: QuietScan) -> None:
        if self._in_hand:
            self._report_quiet(message.request, quiet=False)
        else:
            self._quiet_wanted.append(message.request)
            self._wake.set()

    @on_deferred(Rescan)
    async def _rescan(self, message: Rescan, reply: Reply[Done]) -> None:
        self._rescans.append(reply)
        self._wake.set()

    # ---------------------------------------------------------------- the task

    async def _work(self) -> None:
        with _hints() as (inotify, trouble):
            async with anyio.create_task_group() as tasks:
                if inotify is not None:
                    tasks.start_soon(self._listen, inotify)
                while True:
                    self._wake = anyio.Event()
                    again_in, troubles = await self._pass(inotify)
                    self._warn([*trouble, *troubles])
                    timer = self.context.after(again_in, _Look())
                    await anyio.sleep(PAUSE)
                    await self._wake.wait()
                    timer.cancel()

    async def _listen(self, inotify: INotify) -> None:
        while True:
            await anyio.wait_readable(inotify.fileno())
            inotify.read(timeout=0)
            self._wake.set()

    async def _pass(self, inotify: INotify | None) -> tuple[float, list[str]]:
        """Look once and hand over what has settled. Return in how many seconds to look again, and what went wrong."""
        quiet_wanted, self._quiet_wanted = self._quiet_wanted, []
        rescans, self._rescans = self._rescans, []
        now = self.context.clock.monotonic()
        found = await to_thread.run_sync(self._scan, inotify)
        candidates = self._candidates(found)
        self._board.inbox_files = len(candidates)
        for request in quiet_wanted:
            self._report_quiet(request, quiet=not candidates)
        config = self._store.current
        settled = self._settling.look(
            now,
            # What submit puts there is whole as soon as it has its name.
            {one.path: (one.stamp, 0.0 if one.named.submit_id else config.inbox.settle) for one in candidates.values()},
        )
        self._retry = {path: known for path, known in self._retry.items() if path in candidates}
        ready = [candidates[path] for path in settled.ready if path not in self._retry or self._retry[path][0] <= now]
        troubles = list(found.troubles)
        try:
            for batch in _batches(ready):
                self._in_hand = len(batch)
                troubles += await self._hand_over(batch)
        finally:
            self._in_hand = 0
        troubles += [why for _, why in self._left.values()]
        for reply in rescans:
            reply.send(Done())
        waits = [config.inbox.rescan, *(at - now for at, _ in self._retry.values())]
        return min(waits if settled.again_in is None else [*waits, settled.again_in]), troubles

    def _scan(self, inotify: INotify | None) -> Found:
        """Walk the inbox, making it anew if somebody deleted it. Runs in a worker thread."""

        def watch(folder: Path) -> None:
            if inotify is not None:
                inotify.add_watch(folder, HINTS)  # a no-op where the same folder is watched already

        try:
            return scan(self._inbox, watch)
        except FileNotFoundError:
            self._disk.mkdir(self._inbox, exist_ok=True)
            return scan(self._inbox, watch)

    def _candidates(self, found: Found) -> dict[Path, Candidate]:
        self._left = {path: left for path, left in self._left.items() if found.files.get(path) == left[0]}
        return {
            path: Candidate(path, stamp, read_name(path))
            for path, stamp in found.files.items()
            if path not in self._left
        }

    async def _hand_over(self, batch: Sequence[Candidate]) -> list[str]:
        """Judge the files, tell QueueManager, and return what went wrong."""
        config = self._store.current
        verdicts = await to_thread.run_sync(judge, self._inbox, batch, config, from_thread.check_cancelled)
        queue = self.context.ref(QUEUE)
        asked: list[tuple[tuple[Candidate, Accept | Refuse], Pending[Accepted]]] = []
        troubles: list[str] = []
        for candidate, verdict in verdicts:
            if not isinstance(verdict, Unread):
                asked.append(((candidate, verdict), queue.request(verdict, timeout=PATIENCE)))
            elif verdict.reason is None:
                self._settling.forget(candidate.path)
            else:
                self._try_again(candidate)
                troubles.append(verdict.reason)
        for (candidate, verdict), pending in asked:
            try:
                await pending
            except CallFailed as error:
                if isinstance(error, HandlerFailed) and error.code == NOT_AS_READ:
                    self._over(candidate, verdict)
                else:
                    self._try_again(candidate)
                    troubles.append(f"{candidate.named.file} could not be handed over: {error}")
            else:
                self._over(candidate, verdict)
        return troubles

    def _over(self, candidate: Candidate, verdict: Accept | Refuse) -> None:
        """Forget a file that QueueManager has dealt with or that changed; remember a refused one that it left standing.

        What is no file can only be renamed: on another file system than the queue's it stays where it is.
        """
        self._retry.pop(candidate.path, None)
        self._settling.forget(candidate.path)
        with suppress(OSError):
            if isinstance(verdict, Refuse) and Stamp.of((self._inbox / candidate.path).lstat()) == candidate.stamp:
                why = f"{candidate.named.file} in the inbox is refused: {verdict.reason}"
                self._left[candidate.path] = (candidate.stamp, why)

    def _try_again(self, candidate: Candidate) -> None:
        first, most = RETRY
        _, delay = self._retry.get(candidate.path, (0.0, first))
        self._retry[candidate.path] = (self.context.clock.monotonic() + delay, min(most, 2 * delay))

    # ---------------------------------------------------------------- what others are told

    def _report_quiet(self, request: int, *, quiet: bool) -> None:
        with suppress(MailboxFull):  # then the lease is not granted, and asked for again
            self.context.ref(QUEUE).cast(QuietReport(request, quiet))

    def _warn(self, troubles: Sequence[str]) -> None:
        if not troubles:
            self._board.troubles.pop(NAME, None)
            return
        more = f" (and {len(troubles) - 1} more)" if len(troubles) > 1 else ""
        self._board.troubles[NAME] = Trouble(f"{troubles[0]}{more}", "it is tried again by itself; stokehold doctor")


@contextmanager
def _hints() -> Iterator[tuple[INotify | None, list[str]]]:
    """Open inotify, or say why there is none: the instances of a user are few (``fs.inotify.max_user_instances``)."""
    try:
        inotify = INotify(nonblocking=True)
    except OSError as error:
        if error.errno not in (errno.EMFILE, errno.ENFILE, errno.ENOSYS):
            raise
        yield None, [f"inotify is not available, files are found late: {error.strerror}"]
        return
    with inotify:
        try:
            yield inotify, []
        finally:
            anyio.notify_closing(inotify.fileno())


def _batches(ready: Sequence[Candidate]) -> Iterator[list[Candidate]]:
    """Cut a list of files into batches that are small in number and in bytes, in order."""
    batch: list[Candidate] = []
    size = 0
    for candidate in ready:
        if batch and (len(batch) == BATCH_FILES or size + candidate.stamp.size > BATCH_BYTES):
            yield batch
            batch, size = [], 0
        batch.append(candidate)
        size += candidate.stamp.size
    if batch:
        yield batch
