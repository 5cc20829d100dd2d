"""EchoTrainer keeps the trainer's contract: counted once, exact after any interruption, no torch."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import msgspec
import pytest

from actors.testing.echo_session import ROWS, EchoCrash, EchoSession
from actors.trainer.port import Consolidate, LetGo, LetGoReason, Stop, Wish
from actors.trainer.publish import versions
from actors.trainer.shelf import Shelf
from protocol.config import CheckpointSection, Config, PublishSection, TrainingSection
from protocol.home import Home
from protocol.messages.queue import Claimed, Committed, JobStats, Published
from protocol.messages.trainer import ConsolidationResult
from protocol.records import read_head
from supervisor.durable import Disk
from tests.actors.trainer.disks import full_disk
from tests.actors.trainer.fake_port import FakePort, make_home, put

SETTINGS = Config(
    training=TrainingSection(epochs=2), checkpoint=CheckpointSection(every_steps=3), publish=PublishSection(keep=2)
)
FIRST = [{"text": f"first {n}"} for n in range(22)]
SECOND = [{"text": f"second {n}"} for n in range(9)]


@pytest.fixture
def home(tmp_path: Path) -> Home:
    made = make_home(tmp_path / "home")
    (made.run / "echo-step").write_text("0")
    return made


def control(tmp_path: Path) -> tuple[str, list[tuple[str, int]]]:
    """Return weights and ledger of a run that nothing disturbs."""
    home = make_home(tmp_path / "control")
    (home.run / "echo-step").write_text("0")
    port = FakePort(SETTINGS, [put(home, "a", FIRST), put(home, "b", SECOND)])
    EchoSession(home, Disk(), port).run()
    return outcome(home)


def outcome(home: Home) -> tuple[str, list[tuple[str, int]]]:
    head = read_head(home)
    assert head is not None and head.checkpoint is not None and head.version is not None
    Shelf(home).verify(head.checkpoint)
    (current,) = [one for one in versions(home) if one.version == head.version]
    assert home.current.resolve() == home.version(head.version)
    ledger = Shelf(home).ledger(head.checkpoint)
    assert not ledger.cursors
    return current.weights_sha256, sorted((entry.job, entry.stats.samples) for entry in ledger.committed)


@dataclass
class After:
    """Wishes for something from the so-manieth look on, until it is granted."""

    looks: int
    wish: Wish
    granted: bool = False

    def __call__(self, job: str | None) -> Wish | None:
        self.looks -= 1
        return self.wish if self.looks < 0 and not self.granted else None


def test_files_are_trained_committed_and_published(home: Home) -> None:
    port = FakePort(SETTINGS, [put(home, "a", FIRST), put(home, "b", SECOND)])
    EchoSession(home, Disk(), port).run()
    _, ledger = outcome(home)
    assert ledger == [("a", 44), ("b", 18)]
    committed = [job.id for told in port.of(Committed) for job in told.jobs]
    assert committed == ["a", "b"]
    assert [one.kind for one in versions(home)] == ["trained", "base"]
    assert port.of(Published)[-1].jobs == ("a", "b")
    assert port.steps[-1].global_step == 2 * (-(-22 // ROWS) + -(-9 // ROWS))
    assert port.steps[-1].behind_steps == 0
    assert {phase for _, phase in port.phases} >= {"tokenising", "training"}


def test_a_stop_anywhere_changes_nothing(tmp_path: Path, home: Home) -> None:
    expected = control(tmp_path)
    jobs = [put(home, "a", FIRST), put(home, "b", SECOND)]
    starts = 0
    while jobs:
        starts += 1
        assert starts < 100
        port = FakePort(SETTINGS, jobs, asks=After(23 + 3 * starts, Stop()))
        EchoSession(home, Disk(), port).run()
        jobs = [*port.awaiting, *port.jobs]
        assert not port.awaiting, "a stop takes a checkpoint"
    assert starts > 3
    EchoSession(home, Disk(), FakePort(SETTINGS)).run()
    assert outcome(home) == expected


def test_a_crash_at_any_step_changes_nothing(tmp_path: Path, home: Home) -> None:
    """The exception ends the session without a checkpoint: the next one goes back to the last."""
    expected = control(tmp_path)
    crashes = 0

    class Crashing(FakePort):
        def progress(self, progress: object) -> None:
            super().progress(progress)  # type: ignore[arg-type]
            if len(self.steps) == 14:
                raise EchoCrash("here")

    jobs = [put(home, "a", FIRST), put(home, "b", SECOND)]
    while True:
        port = Crashing(SETTINGS, jobs)
        try:
            EchoSession(home, Disk(), port).run()
        except EchoCrash:
            crashes += 1
            jobs = [*port.awaiting, *port.jobs]
            assert crashes < 50
        else:
            break
    assert crashes >= 2
    assert outcome(home) == expected


@pytest.mark.parametrize("why", ["pause", "skip", "cancel"])
def test_a_job_is_let_go_when_asked(home: Home, why: LetGoReason) -> None:
    asked = After(30, LetGo("a", why))

    class Granting(FakePort):
        def release(self, job: str, why: LetGoReason, stats: JobStats) -> None:
            super().release(job, why, stats)
            asked.granted = True
            if why != "skip":
                self.jobs.clear()

    port = Granting(SETTINGS, [put(home, "a", FIRST), put(home, "b", SECOND)], asks=asked)
    EchoSession(home, Disk(), port).run()
    ((_, job, told, stats),) = port.of("release")
    assert (job, told) == ("a", why)
    assert 0 < stats.samples < 44
    (release_at,) = [place for place, one in enumerate(port.told) if isinstance(one, tuple) and one[0] == "release"]
    saved = [one for one in port.told[:release_at] if isinstance(one, Committed)][-1]
    assert saved.cursors == {"a": stats.samples}, "the checkpoint comes before the release"
    if why == "skip":
        assert outcome(home)[1] == [("a", 44), ("b", 18)]


def test_a_crashing_row_crashes_each_time(home: Home) -> None:
    job = put(home, "bad", [{"text": "good"}, {"text": "echo crash"}])
    for _ in range(2):
        with pytest.raises(EchoCrash):
            EchoSession(home, Disk(), FakePort(SETTINGS, [job])).run()


def test_a_changed_payload_is_refused(home: Home) -> None:
    job = put(home, "a", FIRST)
    Path(job.path).write_text(json.dumps({"text": "other"}) + "\n")
    gone = Claimed("b", "b", str(home.processing / "b"), "0" * 64, "normal", 1)
    port = FakePort(SETTINGS, [job, gone])
    EchoSession(home, Disk(), port).run()
    assert [told[1] for told in port.of("refused")] == ["a", "b"]


def test_a_full_disk_is_waited_for(home: Home) -> None:
    job = put(home, "a", FIRST)
    EchoSession(home, Disk(), FakePort(SETTINGS)).run()
    disk = full_disk(1)
    port = FakePort(SETTINGS, [job])
    waited = port.wait

    def wait(seconds: float) -> None:
        waited(seconds)
        disk._before = lambda number, operation, path: None  # space is back

    port.wait = wait  # type: ignore[method-assign]
    EchoSession(home, disk, port).run()
    assert port.of("write failed")
    assert any(step.blocked for step in port.steps) and port.steps[-1].blocked is None
    assert outcome(home)[1] == [("a", 44)]


def test_a_stop_on_a_full_disk_ends(home: Home) -> None:
    EchoSession(home, Disk(), FakePort(SETTINGS)).run()
    port = FakePort(SETTINGS, [put(home, "a", FIRST)], asks=After(40, Stop()))
    EchoSession(home, full_disk(1), port).run()
    assert {told.step for told in port.of(Committed)} == {0}, "nothing new was saved"


def test_a_consolidation_takes_a_snapshot_once(home: Home) -> None:
    asked = [Consolidate("lease"), Consolidate("lease")]
    port = FakePort(msgspec.structs.replace(SETTINGS, publish=PublishSection(every=1e9)), [put(home, "a", FIRST)])
    EchoSession(home, Disk(), port).run()

    class Night(FakePort):
        def wanted(self, job: str | None = None) -> Wish | None:
            return asked[0] if asked and job is None else Stop()

        def consolidated(self, result: ConsolidationResult) -> None:
            super().consolidated(result)
            asked.pop()

    night = Night(SETTINGS)
    EchoSession(home, Disk(), night).run()
    assert [one.outcome for one in night.of(ConsolidationResult)] == ["refused", "refused"], "it was published"


def test_all_torn_stops_and_says_what_ends_it(home: Home) -> None:
    EchoSession(home, Disk(), FakePort(SETTINGS, [put(home, "a", FIRST)])).run()
    for entry in Shelf(home).entries():
        (home.checkpoints / entry.name / "state.json").unlink()
    port = FakePort(SETTINGS, [put(home, "b", SECOND)], asks=After(3, Stop()))
    EchoSession(home, Disk(), port).run()
    assert "begin again from the base model: mv" in (port.steps[-1].blocked or "")
    assert len(port.jobs) == 1


def test_no_torch_is_imported() -> None:
    program = "import sys, actors.testing.echo; sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
