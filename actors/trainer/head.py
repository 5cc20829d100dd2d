"""HEAD, the one durable record of lineage, checkpoint and version; and ``models/current``, which is derived from it."""

from __future__ import annotations

from pathlib import Path

from actors.trainer.publish import version_problem
from actors.trainer.shelf import Shelf
from actors.trainer.torn import head_missing
from protocol.home import Home
from protocol.records import VERSION_NAME, Head, Unreadable, encode_record, read_head
from supervisor.durable import Disk


class HeadFile:
    """``HOME/HEAD``. Each checkpoint, publication and fall-back ends by replacing it; nothing else does."""

    def __init__(self, home: Home, disk: Disk) -> None:
        self._home = home
        self._disk = disk

    def read(self) -> Head | None:
        """Return HEAD, or None in a home where nothing was ever trained or loaded.

        Raises:
            AllTorn: it is there and cannot be read: the same as missing while checkpoints exist.
            NewerFormat: a newer stokehold wrote it.
        """
        try:
            return read_head(self._home)
        except Unreadable as error:
            raise head_missing(self._home, f"HEAD cannot be read: {error}", Shelf(self._home).adoptable()) from error

    def replace(self, head: Head) -> None:
        """Make ``head`` the HEAD, durably, by one rename."""
        self._disk.replace(self._home.head, encode_record(head))


def repair_current(home: Home, disk: Disk, head: Head | None) -> int | None:
    """Make ``models/current`` name HEAD's version; return the number that it names afterwards.

    If that version is damaged, the newest whole one before it takes its place, so that what ``current`` names can be
    loaded; with none left there is no ``current``. Damage shows in a return value other than ``head.version``.
    """
    newest = head.version if head is not None and head.version is not None else 0
    numbers = sorted(
        (int(path.name) for path in home.versions.glob("*") if VERSION_NAME.fullmatch(path.name)), reverse=True
    )
    number = next((one for one in numbers if one <= newest and version_problem(home, one) is None), None)
    if number is None:
        disk.unlink(home.current, missing_ok=True)
        return None
    target = f"{home.versions.name}/{home.version(number).name}"
    if not home.current.is_symlink() or home.current.readlink() != Path(target):
        disk.symlink(target, home.current)
    return number
