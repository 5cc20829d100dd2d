"""When a session saves, publishes, waits, lets go and ends."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from transformers import AutoModelForCausalLM, AutoTokenizer

from actors.trainer.checkpoint import CheckpointStore
from actors.trainer.keeper import Keeper
from actors.trainer.lineage import Lineage
from actors.trainer.port import LetGo, Stop, Wish
from actors.trainer.torch_tensors import TorchCodec
from protocol.home import Home
from protocol.messages.common import Phase
from protocol.messages.queue import Committed, JobStats, Published
from protocol.records import VersionManifest, read_head, read_record
from supervisor.durable import Disk
from tests.actors.trainer.fake_port import FakePort, make_home, put, settings
from tests.actors.trainer.runs import Killed, again, fresh, held, kill_at, leftovers, run, stop_at


def manifest(home: Home, version: int) -> VersionManifest:
    return read_record(home.version(version) / "manifest.json", VersionManifest)


def test_two_files_one_after_the_other(small: str, tmp_path: Path) -> None:
    home, port = fresh(tmp_path / "home", settings(small))
    run(home, port)
    assert [one[1] for one in port.of("trained")] == ["a.jsonl", "b.jsonl"]
    base, last = port.of(Published)
    assert (base.version, base.step, base.jobs) == (1, 0, ())
    assert (last.version, last.jobs) == (2, ("a.jsonl", "b.jsonl"))
    assert (manifest(home, 1).kind, manifest(home, 2).kind) == ("base", "trained")
    assert [job.id for told in port.of(Committed) for job in told.jobs] == ["a.jsonl", "b.jsonl"], "both together"
    _, ledger, _ = held(home)
    assert ledger.disturbances == ()
    assert [(entry.rows, entry.stats.samples) for entry in ledger.committed] == [(20, 20), (20, 20)]
    first = ledger.committed[0].stats
    assert first.last_loss is not None
    assert first.first_loss is not None
    assert first.last_loss < first.first_loss
    assert os.readlink(home.current) == "versions/000002"
    assert leftovers(home) == []


def test_a_stranger_loads_what_is_published(small: str, tmp_path: Path) -> None:
    home, port = fresh(tmp_path / "home", settings(small, method="lora", lora_rank=2))
    run(home, port)
    model: Any = AutoModelForCausalLM.from_pretrained(home.current)
    tokenizer = AutoTokenizer.from_pretrained(home.current)
    ids = tokenizer("row 1:", return_tensors="pt")
    assert tokenizer.decode(model.generate(**ids, max_new_tokens=3, do_sample=False)[0]).startswith("row 1:")
    assert not [name for name, _ in model.named_parameters() if "lora" in name]


def test_progress_is_told_after_each_step(small: str, tmp_path: Path) -> None:
    home, port = fresh(tmp_path / "home", settings(small, epochs=2))
    run(home, port)
    steps = [one for one in port.steps if one.id == "a.jsonl" and one.step]
    assert [one.step for one in steps] == list(range(1, steps[-1].step + 1))
    assert steps[-1].steps_total == steps[-1].step, "what was foretold came true"
    assert (steps[-1].samples_done, steps[-1].samples_total) == (20, 20), "a sample is one line"
    assert all(one.loss and one.tokens_per_s and one.eta_s is not None and one.learning_rate for one in steps[1:])
    assert port.steps[-1].behind_steps == 0
    assert port.phases[:3] == [("a.jsonl", "loading"), ("a.jsonl", "tokenising"), ("a.jsonl", "training")]


def in_phase(port: FakePort, phase: Phase) -> Callable[[str | None], Wish | None]:
    return lambda job: Stop() if ("a.jsonl", phase) in port.phases else None


@pytest.mark.parametrize("phase", ["loading", "tokenising", "training", "saving"])
def test_a_stop_in_each_phase_leaves_a_checkpoint(small: str, tmp_path: Path, phase: Phase) -> None:
    home, port = fresh(tmp_path / "home", settings(small, {"every_steps": 2}))
    port.asks = in_phase(port, phase)
    run(home, port)
    assert [one[:3] for one in port.of("release")] == [("release", "a.jsonl", "stop")]
    step = {"loading": 0, "tokenising": 0, "training": 0, "saving": 2}[phase]
    head = read_head(home)
    assert head is not None
    assert head.checkpoint is not None
    assert CheckpointStore(home, Disk(), TorchCodec()).load(head.checkpoint).manifest.step == step
    assert port.of(Published)[-1].version == 1, "never published on stop"
    assert [one.id for one in port.jobs] == ["a.jsonl", "b.jsonl"], "the rest of the queue is untouched"
    assert leftovers(home) == []
    second = run(home, again(port))
    assert second.of(Published)[-1].jobs == ("a.jsonl", "b.jsonl"), "what was owed is done"


def test_a_stop_asked_before_anything_writes_nothing(small: str, tmp_path: Path) -> None:
    home, port = fresh(tmp_path / "home", settings(small))
    port.asks = lambda job: Stop()
    run(home, port)
    assert read_head(home) is None
    assert port.told == []


def test_what_was_owed_is_published_at_the_next_start(small: str, tmp_path: Path) -> None:
    home, port = fresh(tmp_path / "home", settings(small))
    port.asks = lambda job: Stop() if len(port.of("trained")) == 2 else None
    run(home, port)
    assert len(port.of(Published)) == 1
    assert len(held_ledger(home)) == 2
    second = run(home, again(port))
    assert second.of(Published)[-1].version == 2
    assert second.of(Published)[-1].jobs == ("a.jsonl", "b.jsonl")
    third = run(home, again(second))
    assert third.of(Published)[-1].version == 2, "told again, not made again"
    assert not home.version(3).exists()


def held_ledger(home: Home) -> list[str]:
    head = read_head(home)
    assert head is not None
    assert head.checkpoint is not None
    return [entry.job for entry in CheckpointStore(home, Disk(), TorchCodec()).load(head.checkpoint).ledger.committed]


@pytest.mark.parametrize("why", ["pause", "skip", "cancel"])
def test_let_go_at_the_next_step_with_a_checkpoint(small: str, tmp_path: Path, why: Any) -> None:
    home, port = fresh(tmp_path / "home", settings(small))

    def asks(job: str | None) -> Wish | None:
        if port.of("release"):
            return Stop()
        return LetGo("a.jsonl", why) if port.steps and port.steps[-1].global_step >= 2 else None

    port.asks = asks
    run(home, port)
    ((_, job, told, stats),) = port.of("release")
    assert (job, told, stats.steps) == ("a.jsonl", why, 2)
    committed = port.of(Committed)[-1]
    assert committed.step == 2
    assert committed.cursors == {"a.jsonl": stats.samples}
    assert port.told.index(committed) < port.told.index(("release", job, told, stats)), "durable before it is answered"


def test_a_job_whose_end_was_not_heard_is_not_trained_twice(small: str, tmp_path: Path) -> None:
    home, port = fresh(tmp_path / "home", settings(small))
    jobs = list(port.jobs)
    run(home, port)
    weights = held(home)
    second = run(home, FakePort(port.settings, jobs))
    assert second.of("trained") == []
    assert {job.id for told in second.of(Committed) for job in told.jobs} == {"a.jsonl", "b.jsonl"}
    assert held(home)[:2] == weights[:2]


def test_killed_before_it_could_tell(small: str, tmp_path: Path) -> None:
    """HEAD is moved and the process dies before QueueManager hears of it: the next one tells."""
    home, port = fresh(tmp_path / "home", settings(small))

    def deaf(told: Committed) -> None:
        if told.jobs:
            raise Killed

    port.committed = deaf  # type: ignore[method-assign]
    with pytest.raises(Killed):
        run(home, port)
    second = run(home, again(port))
    assert {job.id for told in second.of(Committed) for job in told.jobs} == {"a.jsonl", "b.jsonl"}
    assert second.of("trained") == []


@pytest.mark.parametrize("moment", ["after the base", "after a version"])
def test_killed_between_a_version_and_head(
    small: str, tmp_path: Path, moment: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    home, port = fresh(tmp_path / "home", settings(small))
    move, moves = Keeper.move_head, iter([1, 2, 3, 4])
    last = 1 if moment == "after the base" else 4

    def dying(self: Keeper, lineage: Lineage, checkpoint: str | None, version: int | None) -> bool:
        if next(moves) == last:
            raise Killed
        return move(self, lineage, checkpoint, version)

    monkeypatch.setattr(Keeper, "move_head", dying)
    with pytest.raises(Killed):
        run(home, port)
    monkeypatch.setattr(Keeper, "move_head", move)
    second = run(home, again(port))
    kinds = [manifest(home, number).kind for number in range(1, 3)]
    assert kinds == ["base", "trained"], "adopted, not made a second time"
    assert not home.version(3).exists()
    assert second.steps[-1].version == 2
    assert os.readlink(home.current) == "versions/000002"


def test_bad_rows_refuse_the_file_or_are_left_out(small: str, tmp_path: Path) -> None:
    rows = [{"text": "good one"}, {"messages": [{"role": "user", "content": "x"}]}, {"text": "good two"}]
    for mode in ("refuse", "skip"):
        (tmp_path / mode).mkdir()
        home = make_home(tmp_path / mode)
        config = settings(small)
        config = msgspec.structs.replace(config, data=msgspec.structs.replace(config.data, on_bad_line=mode))
        port = run(home, FakePort(config, [put(home, "x.jsonl", rows)]))
        if mode == "refuse":
            ((_, job, reason, lines),) = port.of("refused")
            assert (job, [line.line for line in lines]) == ("x.jsonl", [2])
            assert reason == "1 of 3 rows cannot be trained on"
            assert port.of("trained") == []
        else:
            ((_, job, stats),) = port.of("trained")
            assert (stats.samples, stats.refused) == (2, 1)


def test_lines_that_validation_refused_are_counted(small: str, tmp_path: Path) -> None:
    home = make_home(tmp_path)
    job = put(home, "x.jsonl", [{"text": "good"}, "nonsense\n", {"text": "good"}], refused_lines=(2,))
    port = run(home, FakePort(settings(small), [job]))
    ((_, _, stats),) = port.of("trained")
    assert (stats.samples, stats.refused) == (2, 1)


def test_a_payload_that_changed_is_refused(small: str, tmp_path: Path) -> None:
    home = make_home(tmp_path)
    changed, gone = put(home, "x.jsonl", [{"text": "good"}]), put(home, "y.jsonl", [{"text": "good"}])
    Path(changed.path).write_text(json.dumps({"text": "other"}))
    Path(gone.path).unlink()
    port = run(home, FakePort(settings(small), [changed, gone]))
    assert [(one[1], "changed" in one[2], "gone" in one[2]) for one in port.of("refused")] == [
        ("x.jsonl", True, False), ("y.jsonl", False, True),
    ]  # fmt: skip


def test_held_out_rows_are_not_trained(small: str, tmp_path: Path) -> None:
    config = settings(small)
    config = msgspec.structs.replace(config, evaluation=msgspec.structs.replace(config.evaluation, held_out=0.3))
    home, port = fresh(tmp_path / "home", config)
    run(home, port)
    stats: list[JobStats] = [one[2] for one in port.of("trained")]
    assert all(one.samples + one.held_out == 20 and one.held_out > 0 for one in stats)


def test_a_job_keeps_the_settings_of_its_first_step(small: str, tmp_path: Path) -> None:
    home, port = fresh(tmp_path / "home", settings(small, epochs=2))
    port.asks = stop_at(port, 3)
    run(home, port)
    second = again(port)
    second.settings = settings(small, epochs=1)
    run(home, second)
    assert [(one[1], one[2].samples) for one in second.of("trained")] == [("a.jsonl", 40), ("b.jsonl", 20)]


def test_other_threads_are_a_disturbance(small: str, tmp_path: Path) -> None:
    home, port = fresh(tmp_path / "home", settings(small))
    port.asks = stop_at(port, 3)
    run(home, port)
    second = again(port)
    second.settings = settings(small, threads=2)
    second.asks = stop_at(second, 4)
    run(home, second)
    head = read_head(home)
    assert head is not None
    assert head.checkpoint is not None
    ledger = CheckpointStore(home, Disk(), TorchCodec()).load(head.checkpoint).ledger
    assert ledger.disturbances == ("step 3: threads was 1 and is 2",)
    assert second.of("warned") == [("warned", "step 3: threads was 1 and is 2")]


def test_a_torn_checkpoint_is_passed_over(small: str, tmp_path: Path) -> None:
    home, port = fresh(tmp_path / "home", settings(small, {"every_steps": 3}))
    kill_at(port, 7)
    with pytest.raises(Killed):
        run(home, port)
    head = read_head(home)
    assert head is not None
    assert head.checkpoint is not None
    weights = home.checkpoints / head.checkpoint / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    second = run(home, again(port))
    assert second.of(Committed)[0].step > 3, "the queue finds out by itself where HEAD is"
    ((_, said),) = second.of("warned")
    assert said.startswith(f"{head.checkpoint} is torn: weights.safetensors has")
    assert "training goes on from step-00000003" in said
    assert not (home.checkpoints / head.checkpoint).exists(), "set aside, and gone when it was older than all others"
    assert len(held(home)[1].committed) == 2


def test_all_torn_stops_the_queue_and_says_so(small: str, tmp_path: Path) -> None:
    home, port = fresh(tmp_path / "home", settings(small))
    jobs = list(port.jobs)
    run(home, port)
    for file in home.checkpoints.glob("*/manifest.json"):
        file.write_bytes(b"{")
    second = FakePort(port.settings, jobs)
    second.asks = lambda job: Stop() if second.waits else None
    run(home, second)
    assert "begin again" in str(second.steps[-1].blocked)
    assert second.jobs == jobs, "nothing was claimed"


def test_another_model_or_method_is_refused(small: str, tied: str, tmp_path: Path) -> None:
    home, port = fresh(tmp_path / "home", settings(small))
    run(home, port)
    for config, key in ((settings(tied), "model.source"), (settings(small, method="lora"), "training.method")):
        second = FakePort(config)
        second.asks = lambda job, second=second: Stop() if second.waits else None  # type: ignore[misc]
        run(home, second)
        assert key in str(second.steps[-1].blocked)


def test_old_checkpoints_and_versions_go(small: str, tmp_path: Path) -> None:
    config = settings(small, {"every_steps": 2, "keep": 2})
    config = msgspec.structs.replace(config, publish=msgspec.structs.replace(config.publish, every=0.0, keep=1))
    home, port = fresh(tmp_path / "home", config)
    run(home, port)
    assert len(list(home.checkpoints.iterdir())) == 2
    kept = sorted(path.name for path in home.versions.iterdir())
    assert kept[0] == "000001", "the base stays"
    assert len(kept) <= 3


def test_no_model_no_failure_of_a_job(tmp_path: Path) -> None:
    """A missing model is a crash in phase ``loading``, which counts against the trainer alone."""
    home, port = fresh(tmp_path / "home", settings(str(tmp_path / "nowhere")))
    with pytest.raises(OSError, match="nowhere"):
        run(home, port)
    assert port.phases == [("a.jsonl", "loading")]
    assert read_head(home) is None
