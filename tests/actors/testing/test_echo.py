"""The real session on Echo's engine: counted once, exact after any interruption, no torch."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import msgspec
import pytest

from actors.testing.echo_learner import EchoCrash
from actors.trainer.port import Consolidate, LetGo, Stop, Wish
from actors.trainer.publish import versions
from actors.trainer.recover import WrongHome
from actors.trainer.shelf import Shelf
from protocol.config import PublishSection
from protocol.home import Home
from protocol.messages.queue import Committed, Published
from protocol.messages.trainer import ConsolidationResult, Progress
from protocol.records import MANIFEST, encode_record, read_head
from supervisor.durable import Disk
from supervisor.testing.disks import FullDisk
from tests.actors.testing.runs import SECOND, STEPS, After, Killed, control, new_home, outcome, run, settings, two
from tests.actors.trainer.fake_port import FakePort, put


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return new_home(tmp_path / "home")


def test_files_are_trained_committed_and_published(home: Home) -> None:
    port = run(home, FakePort(settings(), two(home)))
    assert outcome(home)[1] == [("a", 44), ("b", 18)]
    assert [job.id for told in port.of(Committed) for job in told.jobs] == ["a", "b"]
    assert [one.kind for one in versions(home)] == ["trained", "base"]
    assert port.of(Published)[-1].jobs == ("a", "b")
    assert (port.steps[-1].global_step, port.steps[-1].behind_steps, port.steps[-1].device) == (STEPS, 0, "echo")
    assert {phase for _, phase in port.phases} == {"loading", "tokenising", "training", "saving"}


def test_a_stop_at_any_look_changes_nothing(tmp_path: Path, home: Home) -> None:
    expected = control(tmp_path / "control", settings())
    jobs, starts = two(home), 0
    while jobs:
        starts += 1
        assert starts < 100
        port = run(home, FakePort(settings(), jobs, asks=After(8 + starts, Stop())))
        jobs = [*port.awaiting, *port.jobs]
        assert not port.awaiting, "a stop takes a checkpoint"
    assert starts > 3
    run(home, FakePort(settings()))
    assert outcome(home) == expected


def test_a_crash_at_any_step_changes_nothing(tmp_path: Path, home: Home) -> None:
    """The exception ends the session without a checkpoint: the next one goes back to the last."""
    expected = control(tmp_path / "control", settings())
    crashes = 0

    class Crashing(FakePort):
        def progress(self, progress: Progress) -> None:
            super().progress(progress)
            if sum(one.phase == "training" for one in self.steps) == 7:
                raise EchoCrash("here")

    jobs = two(home)
    while True:
        port = Crashing(settings(), jobs)
        try:
            run(home, port)
        except EchoCrash:
            crashes += 1
            jobs = [*port.awaiting, *port.jobs]
            assert crashes < 50
        else:
            break
    assert crashes >= 2
    assert outcome(home) == expected


def test_skipped_half_way_each_row_counts_once(home: Home) -> None:
    port = FakePort(settings(), two(home))
    port.asks = After(20, LetGo("a", "skip"), lambda: bool(port.of("release")))
    run(home, port)
    ((_, job, why, stats),) = port.of("release")
    assert (job, why) == ("a", "skip")
    assert 0 < stats.samples < 44
    assert [one[1] for one in port.of("trained")] == ["b", "a"]
    assert outcome(home)[1] == [("a", 44), ("b", 18)]
    assert port.steps[-1].global_step == STEPS


def test_a_crashing_row_crashes_each_time(home: Home) -> None:
    job = put(home, "bad", [{"text": "good"}, {"text": "echo crash"}])
    for _ in range(2):
        with pytest.raises(EchoCrash):
            run(home, FakePort(settings(), [job]))


def test_a_full_disk_is_waited_for(home: Home) -> None:
    run(home, FakePort(settings(), [put(home, "a", [{"text": "x"}])]))
    disk = FullDisk(full_at=1)
    port = FakePort(settings(), [put(home, "b", [{"text": "y"}])])
    waited = port.wait

    def wait(seconds: float) -> None:
        waited(seconds)
        disk.make_room()

    port.wait = wait  # type: ignore[method-assign]
    run(home, port, disk)
    assert port.of("write failed")
    assert any(step.blocked for step in port.steps)
    assert port.steps[-1].blocked is None
    assert outcome(home)[1] == [("a", 2), ("b", 2)]


def test_a_stop_while_the_model_is_loaded_publishes_nothing(home: Home) -> None:
    port = FakePort(settings(), two(home))
    port.asks = lambda job: Stop() if len(port.of("trained")) == 2 else None
    run(home, port)
    assert [one.kind for one in versions(home)] == ["base"], "a publication is owed"

    class Loading(FakePort):
        def beat(self, phase: str, limit: float | None = None) -> None:
            if phase == "loading":
                self.asks = lambda job: Stop()

    run(home, Loading(settings()))
    assert [one.kind for one in versions(home)] == ["base"]
    run(home, FakePort(settings()))
    assert [one.kind for one in versions(home)] == ["trained", "base"]


def test_what_comes_after_a_fall_back_is_published_however_few_steps_it_takes(home: Home) -> None:
    """The version is ahead of the checkpoint that training fell back to: it says nothing of what came instead."""
    run(home, FakePort(settings(), two(home)))
    head = read_head(home)
    assert head is not None and head.checkpoint is not None
    (home.checkpoints / head.checkpoint / "state.json").write_text("{")
    port = run(home, FakePort(settings(), [put(home, "c", SECOND[:4])]))
    assert port.steps[-1].global_step < STEPS
    assert "c" in {entry.job for entry in versions(home)[0].ledger.committed}
    assert port.steps[-1].behind_steps == 0


class Headless(Disk):
    """HEAD cannot be replaced."""

    def __init__(self, error: BaseException) -> None:
        self.error = error

    def replace(self, path: Path, data: bytes, mode: int = 0o644) -> None:
        if path.name == "HEAD":
            raise self.error
        super().replace(path, data, mode)


def test_what_was_saved_and_never_became_head_gives_its_room_back(home: Home) -> None:
    run(home, FakePort(settings(), [put(home, "a", [{"text": "x"}])]))
    before = [entry.name for entry in Shelf(home).entries()]
    port = FakePort(settings(), [put(home, "b", [{"text": "y"}])])
    port.asks = lambda job: Stop() if port.waits else None
    run(home, port, Headless(OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))))
    assert [entry.name for entry in Shelf(home).entries()] == before, "when a stop gives it up"
    assert {one.step for one in versions(home)} == {0, 2}, "what no checkpoint holds is not published"
    with pytest.raises(Killed):
        run(home, FakePort(settings(), port.awaiting), Headless(Killed()))
    assert len(Shelf(home).entries()) == len(before) + 1
    run(home, FakePort(settings(), asks=lambda job: Stop()))
    assert [entry.name for entry in Shelf(home).entries()] == before, "at the next start"


@pytest.mark.parametrize("method", ["full", "lora"])
def test_a_consolidation(home: Home, method: str) -> None:
    port = run(home, FakePort(settings(method=method), two(home)))
    asked = [Consolidate("lease"), Consolidate("lease")]

    class Night(FakePort):
        def wanted(self, job: str | None = None) -> Wish | None:
            return asked[0] if asked and job is None else Stop()

        def consolidated(self, result: ConsolidationResult) -> None:
            super().consolidated(result)
            asked.pop()

    night = run(home, Night(port.settings))
    assert [one.outcome for one in night.of(ConsolidationResult)] == ["promoted", "refused"]
    assert versions(home)[0].kind == {"full": "snapshot", "lora": "consolidated"}[method]
    run(home, FakePort(port.settings, [put(home, "c", [{"text": "more"}])]))
    assert [name for name, _ in outcome(home)[1]] == ["a", "b", "c"]


def test_all_torn_stops_and_says_what_ends_it(home: Home) -> None:
    run(home, FakePort(settings(), two(home)))
    for entry in Shelf(home).entries():
        (home.checkpoints / entry.name / "state.json").unlink()
    port = run(home, FakePort(settings(), two(home), asks=After(3, Stop())))
    assert "begin again from the base model: mv" in (port.steps[-1].blocked or "")
    assert len(port.jobs) == 2


def test_no_heavy_module_is_imported() -> None:
    heavy = {"torch", "transformers", "tokenizers", "peft", "safetensors", "jinja2"}
    program = f"import sys, actors.testing.echo; sys.exit(bool({heavy} & sys.modules.keys()))"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


@pytest.mark.parametrize("method", ["full", "lora"])
def test_a_damaged_base_is_not_needed_where_the_checkpoint_holds_every_weight(
    tmp_path: Path, home: Home, method: str
) -> None:
    config = settings(method=method)
    expected = control(tmp_path / "control", config)
    first, second = two(home)
    run(home, FakePort(config, [first]))
    (home.version(1) / "model.safetensors").write_bytes(b"damaged")
    if method == "lora":
        with pytest.raises(WrongHome, match="put a copy of it back"):
            run(home, FakePort(config, [second]))
    else:
        run(home, FakePort(config, [second]))
        assert outcome(home) == expected


@pytest.mark.parametrize(
    ("key", "value", "before"),
    [("lora_alpha", 64.0, "32.0"), ("lora_rank", 8, "16"), ("lora_targets", "q_proj", "all")],
)
def test_another_adapter_than_the_home_was_begun_with_is_refused(
    home: Home, key: str, value: object, before: str
) -> None:
    """Another alpha would multiply all that the adapter has learnt, and nobody would be told."""
    first, second = two(home)
    run(home, FakePort(settings(method="lora"), [first]))
    head = read_head(home)
    port = run(home, FakePort(settings(method="lora", **{key: value}), [second], asks=After(3, Stop())))
    assert f"training.{key} is '{value}', but this home was begun with '{before}" in (port.steps[-1].blocked or "")
    assert read_head(home) == head
    assert port.jobs == [second]


def test_a_version_from_the_future_does_not_keep_newer_ones_back(home: Home) -> None:
    """A clock that was years ahead and was set right would else put off the next one for as long."""
    first, second = two(home)
    run(home, FakePort(settings(), [first]))
    newest = versions(home)[0]
    ahead = msgspec.structs.replace(newest, created_at=newest.created_at + timedelta(days=3650))
    (home.version(newest.version) / MANIFEST).write_bytes(encode_record(ahead))
    config = msgspec.structs.replace(settings(), publish=PublishSection(every=0, keep=2))
    port = run(home, FakePort(config, [second]))
    assert len({told.step for told in port.of(Published)}) > 3, "after each step, as was asked"


def test_once_a_stop_is_asked_nothing_is_published(home: Home) -> None:
    """A version of gigabytes would hold it up: the next start does what is owed."""
    config = msgspec.structs.replace(settings(), publish=PublishSection(every=0, keep=2))
    port = FakePort(config, two(home))
    port.asks = lambda job: Stop() if any(one.step >= 2 for one in port.steps) else None
    run(home, port)
    assert port.steps[-1].global_step == 2
    assert port.of(Published)[-1].step == 1
    again = run(home, FakePort(config, port.jobs))
    assert again.of(Published)[0].step == 1, "told again"
    assert outcome(home)[1] == [("a", 44), ("b", 18)]


def test_another_dtype_than_the_home_was_begun_with_is_refused(home: Home) -> None:
    """It would change nothing: the base is stored in the first one."""
    first, second = two(home)
    config = settings()
    run(home, FakePort(config, [first]))
    other = msgspec.structs.replace(config, model=msgspec.structs.replace(config.model, dtype="bfloat16"))
    port = run(home, FakePort(other, [second], asks=After(3, Stop())))
    assert "model.dtype is 'bfloat16', but this home was begun with 'auto'" in (port.steps[-1].blocked or "")
