"""What the user is told: a pure function from snapshots to ``Status``. No actor is asked.

The state is the first that holds of: stopping, starting, paused, blocked, consolidating, training, idle.
"""

from __future__ import annotations

from dataclasses import dataclass

import msgspec

from actors.board import Board
from protocol.messages.common import Trouble
from protocol.messages.queue import GateView, QueueCounts
from protocol.messages.system import DiskStatus, JobStatus, ModelStatus, State, Status, TreeNode
from protocol.messages.trainer import Progress

CONSOLIDATOR_LEASE = "consolidation"
"""The name under which Consolidator holds the maintenance lease."""

_RUNNING = "running"


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What is known of the process itself."""

    pid: int
    uptime_s: float
    home: str
    stopping: str | None
    """Why the daemon is on its way out, or None."""
    tree: TreeNode


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
    trainer = node(around.tree, "TrainerActor")
    alive = trainer is not None and trainer.status == _RUNNING
    progress = board.progress if alive else None
    state, reason = _state(board, around, trainer, progress)
    return Status(
        state=state,
        reason=reason,
        pid=around.pid,
        uptime_s=round(around.uptime_s, 3),
        job=_job(board, progress) if alive else None,
        queue=_counts(board),
        disk=DiskStatus(
            free_bytes=board.disk.free_bytes if board.disk else 0, level=board.disk.level if board.disk else "ok"
        ),
        model=_model(board),
        warnings=_warnings(board, trainer, waiting=_work(board)),
        http=board.http,
        restarts=restarts(around.tree),
        home=around.home,
        trainer_pid=trainer.pid if trainer and alive else None,
    )


def _state(
    board: Board, around: Surroundings, trainer: TreeNode | None, progress: Progress | None
) -> tuple[State, str | None]:
    alive = trainer is not None and trainer.status == _RUNNING
    if around.stopping:
        return "stopping", around.stopping
    if not board.queue_ready:
        return "starting", "looking through queue and checkpoints"
    if board.gate.paused:
        return "paused", "paused by request (stokehold resume)"
    if _work(board) and (trouble := _trouble(board, trainer, progress)):
        return "blocked", str(trouble)
    if board.gate.lease == CONSOLIDATOR_LEASE:
        return "consolidating", None
    if alive and (board.held or board.queue.processing):
        return "training", None
    return "idle", None


def _work(board: Board) -> bool:
    return board.queue.waiting + board.queue.processing > 0


def _trouble(board: Board, trainer: TreeNode | None, progress: Progress | None) -> Trouble | None:
    """Say why waiting or open work is not being trained, or None if it is."""
    if trainer is None or trainer.status != _RUNNING:
        return _trainer_trouble(board.gate, trainer)
    if progress is not None and progress.blocked:
        return Trouble(progress.blocked, progress.remedy or "")
    if board.held or board.queue.processing or board.gate.lease:
        return None
    return _gate_trouble(board.gate) or Trouble("the trainer is taking the next file", "stokehold status")


def _gate_trouble(gate: GateView) -> Trouble | None:
    if gate.disk:
        return Trouble(gate.disk, "free space, or lower disk.refuse_below and: stokehold config reload")
    if gate.device:
        return Trouble(gate.device, "end that process, or wait: stokehold status")
    if gate.stop_after_file:
        return Trouble("stopping after the file that was running", "stokehold resume")
    return None


def _trainer_trouble(gate: GateView, trainer: TreeNode | None) -> Trouble:
    if gate.device:
        return Trouble(gate.device, "end that process, or wait: stokehold status")
    if trainer is None or trainer.status == "starting":
        return Trouble("trainer starting", "stokehold status")
    why = f": {trainer.last_exit}" if trainer.last_exit else ""
    if trainer.status in ("cooling_down", "restarting"):
        return Trouble(
            f"trainer {trainer.status.replace('_', ' ')}{why}", "it is tried again by itself; stokehold logs"
        )
    return Trouble(f"trainer {trainer.status.replace('_', ' ')}{why}", "stokehold logs, then start the daemon again")


def _job(board: Board, progress: Progress | None) -> JobStatus | None:
    if progress is None or progress.id is None or progress.phase is None:
        return None
    if board.held is None and not board.queue.processing:
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


def _counts(board: Board) -> QueueCounts:
    return msgspec.structs.replace(board.queue, inbox=board.inbox_files)


def _model(board: Board) -> ModelStatus:
    progress = board.progress
    if progress is None:
        return ModelStatus(version=None, step=0, behind_steps=0)
    return ModelStatus(version=progress.version, step=progress.global_step, behind_steps=progress.behind_steps)


def _warnings(board: Board, trainer: TreeNode | None, *, waiting: bool) -> list[str]:
    found = [f"{name}: {trouble}" for name, trouble in sorted(board.troubles.items())]
    if board.disk and board.disk.level != "ok":
        floor = board.disk.warn_below if board.disk.level == "low" else board.disk.refuse_below
        found.append(f"disk {board.disk.level}: {board.disk.free_bytes} bytes free, floor {floor} (stokehold doctor)")
    if not waiting and trainer is not None and trainer.status not in (_RUNNING, "starting"):
        found.append(str(_trainer_trouble(board.gate, trainer)))
    return found
