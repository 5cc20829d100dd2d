"""What a training process does first: sweep, find the newest whole checkpoint, make HEAD and ``current`` true."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from datetime import UTC, datetime

import msgspec

from actors.trainer.checkpoint import CheckpointStore, Loaded
from actors.trainer.engine import Engine, Learner
from actors.trainer.head import HeadFile, repair_current
from actors.trainer.keeper import Keeper
from actors.trainer.lineage import Lineage
from actors.trainer.publish import clean_versions, verify_version, versions
from actors.trainer.torn import start_command
from protocol.config import Config
from protocol.home import Home
from protocol.records import MANIFEST, BaseModel, Head, VersionManifest, read_record
from supervisor.durable import Disk

FIXED = ("lora_rank", "lora_alpha", "lora_targets")
"""Keys of [training] that shape an adapter: the weights of one mean something else under another."""


class WrongHome(Exception):
    """The settings name another model or method than the home was begun with, or the base it stands on is damaged."""


class NoRoom(Exception):
    """A stop is asked and the disk is full, so that what was to be written first cannot be."""


@dataclass(frozen=True, slots=True)
class Found:
    """What a home holds."""

    lineage: Lineage | None
    """None: nothing was ever loaded here."""
    loaded: Loaded | None
    """The checkpoint to go on from. None: training begins from the base."""
    published: VersionManifest | None


def recover(home: Home, disk: Disk, store: CheckpointStore) -> Found:
    """Remove what a killed process left half-made and return what is whole; HEAD and ``current`` name it afterwards.

    Raises:
        AllTorn: there are checkpoints and none can be resumed from.
    """
    store.clean()
    clean_versions(home, disk)
    heads = HeadFile(home, disk)
    head = heads.read()
    loaded = store.newest_valid(head)
    named = _adopt(home, head)
    if named is not None and loaded is not None and loaded.manifest.name != named.checkpoint:
        named = msgspec.structs.replace(named, checkpoint=loaded.manifest.name, updated_at=datetime.now(UTC))
    if named is not None and named != head:
        heads.replace(named)
    shown = repair_current(home, disk, named)
    published = read_record(home.version(shown) / MANIFEST, VersionManifest) if shown is not None else None
    if loaded is not None:
        return Found(Lineage.resumed(loaded, published), loaded, published)
    return Found(Lineage.born(named, published) if named and published else None, None, published)


def _adopt(home: Home, head: Head | None) -> Head | None:
    """Return HEAD with the version that a killed process had published and not yet named.

    Only one of the very state that HEAD names: a consolidated one was not yet compared, so it is left alone. Without a
    HEAD a new lineage begins, from the base that is there: its first HEAD was not reached, or was taken away to begin
    again.
    """
    for version in versions(home):
        if head is None and version.kind == "base":
            return Head(secrets.token_hex(8), None, version.version, datetime.now(UTC))
        if (
            head is not None
            and version.kind in ("trained", "snapshot")
            and version.version > (head.version or 0)
            and (version.lineage, version.checkpoint) == (head.lineage, head.checkpoint)
        ):
            return msgspec.structs.replace(head, version=version.version, updated_at=datetime.now(UTC))
    return head


def check_stamp(home: Home, found: Found, config: Config) -> None:
    """Compare the settings with what the home was begun with.

    Raises:
        WrongHome: they name another model, dtype or method, or another adapter.
    """
    if found.lineage is None:
        return
    base, identity, now = found.lineage.base, found.lineage.identity, _fixed(config)
    for key, stamped, asked in (
        ("model.source", base.source, config.model.source),
        ("training.method", base.method, config.training.method),
        *((key, identity.get(key, asked), asked) for key, asked in now.items()),
    ):
        if stamped != asked:
            raise WrongHome(
                f"{key} is {asked!r}, but this home was begun with {stamped!r}: stop the daemon (stokehold stop --home "
                f"{home.root}), set it back or use another home, and start it: {start_command(home)}"
            )


def identity_of(engine: Engine, config: Config) -> dict[str, str]:
    """Return what a checkpoint notes of the run that made it."""
    return engine.identity(config) | _fixed(config)


def _fixed(config: Config) -> dict[str, str]:
    """Return the settings that shape what is stored: the base, and the adapter if there is one."""
    fixed: dict[str, str] = {"model.dtype": config.model.dtype}
    if config.training.method == "lora":
        fixed |= {f"training.{key}": str(getattr(config.training, key)) for key in FIXED}
    return fixed


def begin(engine: Engine, config: Config, keeper: Keeper) -> tuple[Learner, Lineage]:
    """Load the base, publish it as the first version, and return the learner with a lineage of its own.

    Raises:
        NoRoom: a stop is asked and the disk is full.
    """
    learner = engine.load(config)
    base = BaseModel(config.model.source, "", config.training.method)
    lineage = Lineage(secrets.token_hex(8), base, identity=identity_of(engine, config))
    version = keeper.write_version(lineage, learner, "base")
    if version is None or not keeper.move_head(lineage, None, version.version):
        raise NoRoom
    lineage.base = version.base
    keeper.accept_version(lineage, version)
    return learner, lineage


def rebuild(home: Home, engine: Engine, config: Config, lineage: Lineage, loaded: Loaded | None) -> Learner:
    """Return the learner as the checkpoint left it, or as it was born if there is none yet.

    The base is read from the version that holds it, not from where it once came, so that it cannot have changed.

    Raises:
        WrongHome: that version is damaged or gone.
        WrongShape: the checkpoint does not fit it.
    """
    learner = engine.reload(home.version(_version_to_load(home, lineage)), config)
    if loaded is not None:
        learner.restore(loaded.tensors, loaded.state)
    return learner


def _version_to_load(home: Home, lineage: Lineage) -> int:
    """Return the version that holds the base; of a model whose every weight is in the checkpoint, any other will do."""
    found = versions(home)
    able = [one.version for one in reversed(found) if one.weights_sha256 == lineage.base.weights_sha256]
    if lineage.base.method == "full" and lineage.checkpoint is not None:
        able += [one.version for one in found if one.base.weights_sha256 == lineage.base.weights_sha256]
    problems = []
    for number in dict.fromkeys(able):
        if (problem := verify_version(home, number)) is None:
            return number
        problems.append(f"{home.version(number)} is damaged: {problem}")
    why = "; ".join(problems) or "it is gone"
    raise WrongHome(
        f"no version holds the base model ({why}): put a copy of it back: cp -a BACKUP/NNNNNN {home.versions}/"
    )
