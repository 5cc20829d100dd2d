"""How many checkpoints and versions are kept. By count, never by age or idleness; never what HEAD needs.

The jobs begun and unfinished have their cursors in the ledger of HEAD's checkpoint: what HEAD needs is what they need.
"""

from __future__ import annotations

from actors.trainer.publish import versions
from actors.trainer.shelf import Shelf, step_of
from actors.trainer.staging import TORN, discard
from protocol.home import Home
from protocol.records import read_head
from supervisor.durable import Disk


def retain_checkpoints(home: Home, disk: Disk, keep: int) -> list[str]:
    """Keep HEAD's checkpoint and the newest ``keep`` of its line.

    Those that HEAD can no longer reach (newer than HEAD's, or of another lineage) do not count. Damaged ones are left
    for the next start to set aside; those set aside go when they are older than everything kept. Without a HEAD that
    names a checkpoint nothing is removed.

    Returns:
        The names of the folders removed.
    """
    head = read_head(home)
    if head is None or head.checkpoint is None:
        return []
    shelf = Shelf(home)
    whole = {entry.name: entry for entry in shelf.entries() if entry.problem is None}
    line = [name for name in shelf.line_of(head) if name in whole]
    line.sort(key=lambda name: whole[name].age, reverse=True)
    kept = {head.checkpoint, *line[:keep]}
    removed = [name for name in whole if name not in kept]
    oldest = min(step_of(name) for name in kept)
    past = [path.name for path in shelf.set_aside() if step_of(path.name.removeprefix(TORN)) < oldest]
    for name in [*removed, *past]:
        discard(disk, shelf.path(name))
    return [*removed, *past]


def retain_versions(home: Home, disk: Disk, keep: int) -> list[int]:
    """Keep the newest ``keep`` versions beside HEAD's and the bases that kept checkpoints stand on.

    Without a HEAD that names a version nothing is removed.

    Returns:
        The numbers removed.
    """
    head = read_head(home)
    if head is None or head.version is None:
        return []
    stood_on = {entry.manifest.base.weights_sha256 for entry in Shelf(home).entries() if entry.manifest}
    found = versions(home)
    stood_on |= {one.base.weights_sha256 for one in found if one.version == head.version}
    needed = {one.version for one in found if one.weights_sha256 in stood_on or one.kind == "base"}
    needed |= {head.version}
    spare = [one.version for one in found if one.version not in needed]
    removed = spare[keep:]
    for number in removed:
        discard(disk, home.version(number))
    return removed
