"""What the user is told: a pure function from snapshots to ``Status``. No actor is asked.

The state is the first that holds of: stopping, starting, paused, blocked, consolidating, training, idle.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from typing import Final

import msgspec

from actors.board import Board, Held
from actors.disk_levels import REMEDY as DISK_REMEDY
from protocol.cli.paint import size
from protocol.messages.common import Trouble
from protocol.messages.queue import GateView, QueueCounts
from protocol.messages.system import DiskStatus, JobStatus, State, Status, TreeNode
from protocol.messages.trainer import Progress
from supervisor import Context
from supervisor.record import Status as Doing

CONSOLIDATOR_LEASE: Final = "consolidation"
"""The name under which Consolidator holds the maintenance lease."""

TRAINER: Final = "TrainerActor"

_NOT_YET = (Doing.NEW, Doing.STARTING)
_COMING_BACK = (Doing.EXITED, Doing.RESTARTING, Doing.WAITING, Doing.COOLING)
"""What a child does that its supervisor starts again by itself."""


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What is known of the process itself."""

    pid: int
    uptime_s: float
    home: str
    stopping: str | None
    """Why the daemon is on its way out, or None."""
    tree: TreeNode
    trainer: int
    """The incarnation of TrainerActor that lives now, or lived last."""

    @classmethod
    def of(cls, context: Context, board: Board, home: str) -> Surroundings:
        """Look around from an actor of the tree."""
        tree = context.tree()
        return cls(
            pid=os.getpid(),
            uptime_s=time.monotonic() - board.started,
            home=home,
            stopping=board.stopping or ("the tree is stopping" if tree.status == Doing.STOPPING else None),
            tree=tree,
            trainer=context.ref(TRAINER).cell.incarnation,
        )


def node(tree: TreeNode, name: str) -> TreeNode | None:
    """Return the child of that id, wherever in the tree."""
    if tree.id == name:
        return tree
    return next((found for child in tree.children if (found := node(child, name))), None)


def restarts(tree: TreeNode) -> int:
    """Return the restarts of all workers since the daemon started."""
    return sum(restarts(child) for child in tree.children) if tree.children else tree.restarts


def status(board: Board, around: Surroundings) -> Status:
    """Derive what the daemon does now from the newest snapshots."""
    seen = _Seen(board, around)
    state, reason = _state(seen)
    return Status(
        state=state,
        reason=reason,
        pid=around.pid,
        uptime_s=round(around.uptime_s, 3),
        job=_job(seen),
        queue=counts(board),
        disk=DiskStatus(
            free_bytes=board.disk.free_bytes if board.disk else 0, level=board.disk.level if board.disk else "ok"
        ),
        model=board.model,
        warnings=_warnings(seen),
        http=board.http,
        restarts=restarts(around.tree),
        home=around.home,
        trainer_pid=seen.trainer.pid if seen.trainer and seen.alive else None,
    )


def counts(board: Board) -> QueueCounts:
    """Return how many files stand where, the inbox with them."""
    return msgspec.structs.replace(board.queue, inbox=board.inbox_files)


class _Seen:
    """The snapshots, without what an incarnation of the trainer that is dead has left on them."""

    def __init__(self, board: Board, around: Surroundings) -> None:
        self.board = board
        self.gate = board.gate
        self.around = around
        self.trainer = node(around.tree, TRAINER)
        self.alive = self.trainer is not None and self.trainer.status in (Doing.RUNNING, Doing.SUSPENDED)
        self.progress: Progress | None = board.progress if self.alive else None
        mine = self.alive and board.held is not None and board.held.incarnation == around.trainer
        self.held: Held | None = board.held if mine else None
        self.work = board.queue.waiting + board.queue.processing > 0


def _state(seen: _Seen) -> tuple[State, str | None]:
    if seen.around.stopping:
        return "stopping", seen.around.stopping
    if not seen.board.queue_ready:
        return "starting", "looking through queue and checkpoints"
    if seen.around.tree.status == Doing.STARTING:
        return "starting", _not_up(seen.around.tree)
    if seen.gate.paused:
        return "paused", "paused by request (stokehold resume)"
    if seen.work and (trouble := _trouble(seen)):
        return "blocked", str(trouble)
    if seen.gate.lease == CONSOLIDATOR_LEASE:
        return "consolidating", None
    if seen.alive and (seen.held or seen.board.queue.processing):
        return "training", None
    return "idle", None


def _not_up(tree: TreeNode) -> str:
    """Name the first actor that has not started yet."""
    below = next((child for child in tree.children if child.status != Doing.RUNNING), None)
    return _not_up(below) if below else f"{tree.id} is {tree.status}"


def _trouble(seen: _Seen) -> Trouble | None:
    """Say why waiting or open work is not being trained, or None if it is."""
    if not seen.alive:
        return _trainer_trouble(seen.gate, seen.trainer)
    if seen.progress is not None and seen.progress.blocked:
        return _what_the_trainer_says(seen.progress, seen.gate)
    if seen.held or seen.gate.lease:
        return None
    if seen.progress is None:
        return Trouble("trainer starting", "stokehold status")
    if seen.board.queue.processing:
        # Trained and awaiting its checkpoint; or interrupted, and then the gate must let it be claimed again.
        return _gate_trouble(msgspec.structs.replace(seen.gate, stop_after_file=False, lease_wanted=None))
    return _gate_trouble(seen.gate) or Trouble("the trainer is taking the next file", "stokehold status")


def _what_the_trainer_says(progress: Progress, gate: GateView) -> Trouble:
    remedy = progress.remedy or (DISK_REMEDY if gate.disk else "")
    return Trouble(progress.blocked or "", remedy)


def _gate_trouble(gate: GateView) -> Trouble | None:
    if gate.storage:
        return Trouble(gate.storage, "mend that, and it goes on by itself; stokehold doctor")
    if gate.disk:
        return Trouble(gate.disk, DISK_REMEDY)
    if gate.device:
        return Trouble(gate.device, "end that process, or wait: stokehold status")
    if gate.stop_after_file:
        return Trouble("stopping after the file that was running", "stokehold resume")
    if gate.lease_wanted:
        return Trouble(f"{gate.lease_wanted} comes before the next file", "it goes on by itself; stokehold status")
    return None


def _trainer_trouble(gate: GateView, trainer: TreeNode | None) -> Trouble:
    if gate.device:
        return Trouble(gate.device, "end that process, or wait: stokehold status")
    if trainer is None or trainer.status in _NOT_YET:
        return Trouble("trainer starting", "stokehold status")
    what = f"trainer {trainer.status}" + (f": {trainer.last_exit}" if trainer.last_exit else "")
    if trainer.status in _COMING_BACK:
        return Trouble(what, "it is tried again by itself; stokehold logs")
    return Trouble(what, "stokehold logs, then start the daemon again")


def _job(seen: _Seen) -> JobStatus | None:
    progress = seen.progress
    if progress is None or progress.id is None or progress.phase is None:
        return None
    if seen.held is None and not seen.board.queue.processing:
        return None
    return JobStatus(
        id=progress.id,
        file=progress.file or "",
        priority=progress.priority or "normal",
        attempt=progress.attempt,
        phase=progress.phase,
        step=progress.step,
        steps_total=progress.steps_total,
        samples_done=progress.samples_done,
        samples_total=progress.samples_total,
        tokens=progress.tokens,
        loss=progress.loss,
        tokens_per_s=progress.tokens_per_s,
        eta_s=progress.eta_s,
    )


def _suspended(tree: TreeNode) -> list[str]:
    """Name the actors that handle nothing because somebody said so."""
    below = [name for child in tree.children for name in _suspended(child)]
    return [tree.id, *below] if tree.status == Doing.SUSPENDED else below


def _warnings(seen: _Seen) -> list[str]:
    board = seen.board
    found = [f"{name}: {trouble}" for name, trouble in sorted(board.troubles.items())]
    found += [f"{name} is suspended (stokehold actor resume {name})" for name in _suspended(seen.around.tree)]
    if board.disk and board.disk.level != "ok":
        floor = board.disk.warn_below if board.disk.level == "low" else board.disk.refuse_below
        found.append(
            f"disk {board.disk.level}: {size(board.disk.free_bytes)} free, floor {size(floor)} (stokehold doctor)"
        )
    if seen.work:
        return found  # what is wrong with the trainer then is the reason of ``blocked``
    if seen.progress is not None and seen.progress.blocked:
        found.append(str(_what_the_trainer_says(seen.progress, seen.gate)))
    elif seen.trainer is not None and not seen.alive and seen.trainer.status not in _NOT_YET:
        found.append(str(_trainer_trouble(seen.gate, seen.trainer)))
    return found
