"""HEAD, the checkpoint and the version that it names, and ``models/current``: do they agree?"""

from __future__ import annotations

from protocol.cli.checkpoints import damage, folders
from protocol.cli.doctor.finding import Finding
from protocol.home import Home
from protocol.records import MANIFEST, Head, NewerFormat, Unreadable, VersionManifest, read_head, read_record


def check(home: Home) -> list[Finding]:
    """Is what HEAD names there and whole (by names and sizes), and does ``current`` point to it?"""
    try:
        head = read_head(home)
    except NewerFormat as error:
        return [Finding("trouble", str(error))]
    except Unreadable as error:
        return [Finding("trouble", f"HEAD cannot be read: {error}", "see what is whole: stokehold checkpoints verify")]
    if head is None:
        return _without_head(home)
    found = [*_checkpoint(home, head), *_version(home, head), *_current(home, head)]
    return found or [Finding("ok", f"HEAD, checkpoint {head.checkpoint or 'none yet'} and models/current agree")]


def _without_head(home: Home) -> list[Finding]:
    if folders(home):
        return [
            Finding(
                "trouble",
                "there are checkpoints and no HEAD: nothing will be trained on top of them",
                "see what is whole: stokehold checkpoints verify",
            )
        ]
    return [Finding("ok", "nothing was trained here yet")]


def _checkpoint(home: Home, head: Head) -> list[Finding]:
    if head.checkpoint is None:
        return []
    _, found = damage(home.checkpoints / head.checkpoint, thorough=False)
    remedy = "the daemon sets it aside and goes on from the one before; see: stokehold checkpoints verify"
    return [Finding("trouble", text, remedy) for text in found]


def _version(home: Home, head: Head) -> list[Finding]:
    if head.version is None:
        return []
    folder = home.version(head.version)
    try:
        manifest = read_record(folder / MANIFEST, VersionManifest)
    except FileNotFoundError:
        return [Finding("trouble", f"HEAD names version {head.version}, and {folder} is gone or unfinished")]
    except (Unreadable, NewerFormat) as error:
        return [Finding("trouble", str(error))]
    wrong = [
        name
        for name, digest in manifest.files.items()
        if not (folder / name).is_file() or (folder / name).stat().st_size != digest.bytes
    ]
    return [Finding("trouble", f"{folder}: {name} is missing or of another size") for name in wrong]


def _current(home: Home, head: Head) -> list[Finding]:
    try:
        target = str(home.current.readlink())
    except FileNotFoundError:
        target = None
    except OSError:
        return [
            Finding("trouble", f"{home.current} is no symlink", "move it away; the daemon makes it again at its start")
        ]
    wanted = None if head.version is None else f"versions/{head.version:06d}"
    if target == wanted:
        return []
    what = f"models/current is {target or 'missing'}, HEAD says {wanted or 'no version'}"
    return [Finding("warning", what, "the daemon repairs it at its next start")]
