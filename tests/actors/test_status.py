"""`status` is a pure function of snapshots: each state, and the order in which they win."""

from __future__ import annotations

import msgspec
import pytest

from actors.board import Board, Held
from actors.status import CONSOLIDATOR_LEASE, Surroundings, status
from protocol.messages.common import Trouble
from protocol.messages.disk import DiskView
from protocol.messages.queue import GateView, QueueCounts
from protocol.messages.system import ModelStatus, TreeNode
from protocol.messages.trainer import Progress
from supervisor.record import Status as Doing


def leaf(name: str, state: str = "running", restarts: int = 0, last_exit: str | None = None) -> TreeNode:
    return TreeNode(
        id=name,
        kind="worker",
        status=state,
        restarts=restarts,
        last_exit=last_exit,
        uptime_s=1.0,
        mailbox=0,
        pid=77 if name == "TrainerActor" else None,
        children=[],
    )


def around(
    trainer: str = "running",
    stopping: str | None = None,
    last_exit: str | None = None,
    root: str = "running",
    incarnation: int = 1,
) -> Surroundings:
    tree = msgspec.structs.replace(
        leaf("root", root),
        kind="supervisor",
        children=[leaf("QueueManager", restarts=2), leaf("TrainerActor", trainer, 3, last_exit)],
    )
    return Surroundings(pid=1, uptime_s=2.0, home="/home", stopping=stopping, tree=tree, trainer=incarnation)


def progress(**changes: object) -> Progress:
    base = Progress(
        id="j1",
        file="x.jsonl",
        priority="high",
        attempt=1,
        phase="training",
        step=3,
        steps_total=9,
        samples_done=30,
        samples_total=90,
        tokens=100,
        loss=2.5,
        tokens_per_s=50.0,
        eta_s=2.0,
        global_step=13,
        version=4,
        behind_steps=3,
    )
    return msgspec.structs.replace(base, **changes)


def board(**changes: object) -> Board:
    made = Board(queue_ready=True, progress=progress(), model=ModelStatus(4, 13, 3))
    for name, value in changes.items():
        setattr(made, name, value)
    return made


BUSY = {"held": Held("j1", 1), "queue": QueueCounts(processing=1, normal=2)}
WAITING = {"queue": QueueCounts(normal=2)}


def test_a_suspended_trainer_goes_on_with_its_file_and_that_is_told() -> None:
    now = status(board(**BUSY), around(Doing.SUSPENDED))
    assert now.state == "training"
    assert now.warnings == ["TrainerActor is suspended (stokehold actor resume TrainerActor)"]


def test_training_with_its_job() -> None:
    now = status(board(**BUSY, inbox_files=5), around())
    assert (now.state, now.reason) == ("training", None)
    assert now.job is not None
    assert (now.job.file, now.job.priority, now.job.phase, now.job.step) == ("x.jsonl", "high", "training", 3)
    assert now.queue == QueueCounts(inbox=5, normal=2, processing=1)
    assert now.trainer_pid == 77
    assert (now.model.version, now.model.step, now.model.behind_steps) == (4, 13, 3)
    assert now.restarts == 5, "supervisors are not counted beside their children"


@pytest.mark.parametrize("state", [doing for doing in Doing if doing not in (Doing.RUNNING, Doing.SUSPENDED)])
def test_never_training_without_a_live_trainer(state: str) -> None:
    now = status(board(**BUSY), around(state, last_exit="killed by signal 9"))
    assert now.state == "blocked"
    assert now.job is None
    assert now.trainer_pid is None
    assert now.reason is not None
    assert "trainer" in now.reason
    assert "stokehold" in now.reason, "a blocked reason prints the command that ends it"


def test_order_in_which_states_win() -> None:
    everything = board(**BUSY, gate=GateView(paused=True, disk="3 GiB free"), queue_ready=False)
    assert status(everything, around(stopping="SIGTERM")).state == "stopping"
    assert status(everything, around()).state == "starting"
    everything.queue_ready = True
    assert status(everything, around(root="starting")).state == "starting"
    assert status(everything, around()).state == "paused"
    everything.gate = GateView(disk="3 GiB free")
    everything.held = None
    everything.queue = QueueCounts(normal=1)
    assert status(everything, around()).state == "blocked"


def test_a_queue_that_cannot_write_says_so() -> None:
    shut = GateView(storage="the queue cannot write: Read-only file system: /h/queue/low/a.jsonl")
    now = status(board(**WAITING, gate=shut), around())
    assert now.state == "blocked"
    assert now.reason is not None
    assert "Read-only file system" in now.reason
    assert "stokehold doctor" in now.reason


def test_blocked_by_disk_says_what_ends_it() -> None:
    now = status(board(**WAITING, gate=GateView(disk="3 GiB free, 10 GiB needed")), around())
    assert now.state == "blocked"
    assert now.reason is not None
    assert "3 GiB free" in now.reason
    assert "stokehold config reload" in now.reason


def test_a_held_file_that_waits_for_disk_is_blocked() -> None:
    now = status(
        board(**BUSY, progress=progress(blocked="no room for a checkpoint", remedy="stokehold doctor")), around()
    )
    assert (now.state, now.reason) == ("blocked", "no room for a checkpoint (stokehold doctor)")
    assert now.job is not None


def test_trained_and_awaiting_its_checkpoint_is_still_training() -> None:
    now = status(board(held=None, queue=QueueCounts(processing=1)), around())
    assert now.state == "training"


def test_a_trainer_that_is_tried_again_by_itself_needs_no_hand() -> None:
    for state in (Doing.COOLING, Doing.RESTARTING):
        reason = status(board(**WAITING), around(state, last_exit="no such model")).reason
        assert reason == f"trainer {state}: no such model (it is tried again by itself; stokehold logs)"
    reason = status(board(**WAITING), around(Doing.STOPPED)).reason
    assert reason == "trainer stopped (stokehold logs, then start the daemon again)"


def test_while_the_tree_starts_the_actor_that_is_waited_for_is_named() -> None:
    now = status(board(**WAITING), around(Doing.STARTING, root="starting"))
    assert (now.state, now.reason) == ("starting", "TrainerActor is starting")


def test_what_a_dead_incarnation_held_is_not_being_trained() -> None:
    """The new process has joined and said nothing yet; QueueManager has not come to the death of the old one."""
    now = status(board(**BUSY, progress=None), around(incarnation=2))
    assert (now.state, now.reason, now.job) == ("blocked", "trainer starting (stokehold status)", None)


def test_an_interrupted_file_is_not_being_trained_while_the_gate_is_shut() -> None:
    interrupted = {"queue": QueueCounts(processing=1), "progress": progress(id=None, phase=None)}
    now = status(board(**interrupted, gate=GateView(disk="3 GiB free, 10 GiB needed")), around())
    assert now.state == "blocked"
    assert now.reason is not None and now.reason.startswith("3 GiB free, 10 GiB needed (")


def test_a_wait_for_disk_of_the_trainer_says_what_ends_it() -> None:
    full = board(**BUSY, progress=progress(blocked="No space left on device"), gate=GateView(disk="disk: full"))
    reason = status(full, around()).reason
    assert reason is not None and "stokehold config reload" in reason


def test_what_stops_the_trainer_for_good_is_a_warning_while_nothing_waits() -> None:
    now = status(board(progress=progress(id=None, phase=None, blocked="all torn", remedy="rm -r x")), around())
    assert (now.state, now.warnings) == ("idle", ["all torn (rm -r x)"])


def test_consolidating_while_the_lease_is_held() -> None:
    assert status(board(gate=GateView(lease=CONSOLIDATOR_LEASE)), around()).state == "consolidating"
    assert status(board(**WAITING, gate=GateView(lease=CONSOLIDATOR_LEASE)), around()).state == "consolidating"


def test_a_consolidation_between_two_files_lets_the_running_one_end() -> None:
    wanted = GateView(lease_wanted=CONSOLIDATOR_LEASE)
    assert status(board(**BUSY, gate=wanted), around()).state == "training"
    awaiting = {"held": None, "queue": QueueCounts(processing=1, normal=2)}
    assert status(board(**awaiting, gate=wanted), around()).state == "training", "it awaits its checkpoint"
    now = status(board(**WAITING, gate=wanted), around())
    assert (now.state, now.reason) == (
        "blocked",
        "consolidation comes before the next file (it goes on by itself; stokehold status)",
    )
    assert status(board(gate=wanted), around()).state == "idle"
    assert status(board(**WAITING, gate=GateView(lease=CONSOLIDATOR_LEASE)), around()).state == "consolidating"


@pytest.mark.parametrize("trainer", ["starting", "restarting", "cooling_down", "running"])
def test_a_held_device_is_said_whatever_the_trainer_does(trainer: str) -> None:
    held = GateView(device="device held by PID 4711")
    now = status(board(**WAITING, gate=held), around(trainer, last_exit="start failed: Held"))
    assert (now.state, now.reason) == (
        "blocked",
        "device held by PID 4711 (end that process, or wait: stokehold status)",
    )
    idle = status(board(gate=held), around("cooling_down"))
    assert idle.state == "idle"
    assert any("device held by PID 4711" in warning for warning in idle.warnings)


def test_idle_with_trouble_warns_and_is_not_blocked() -> None:
    now = status(
        board(
            troubles={"MetricsExporter": Trouble("port 9464 is taken", "set http.port")},
            disk=DiskView(
                free_bytes=5,
                total_bytes=10,
                free_inodes=1,
                level="low",
                refuse_below=1,
                warn_below=6,
                reserved_bytes=0,
            ),
        ),
        around(Doing.COOLING, last_exit="no such model"),
    )
    assert now.state == "idle"
    assert any("port 9464" in warning and "set http.port" in warning for warning in now.warnings)
    assert any("disk low" in warning for warning in now.warnings)
    assert any("no such model" in warning for warning in now.warnings)
