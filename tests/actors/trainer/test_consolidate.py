"""The night's work: all of it becomes HEAD at once, or nothing does."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from actors.trainer import torch_engine
from actors.trainer.checkpoint import CheckpointStore
from actors.trainer.keeper import Keeper
from actors.trainer.lineage import Lineage
from actors.trainer.model import load_folder
from actors.trainer.port import Consolidate, Wish
from actors.trainer.probe import differ
from actors.trainer.torch_tensors import TorchCodec
from protocol.config import ModelSection
from protocol.home import Home
from protocol.messages.queue import Published
from protocol.messages.trainer import ConsolidationResult
from protocol.records import Head, VersionManifest, read_head, read_record
from supervisor.durable import Disk
from tests.actors.trainer.fake_port import FakePort, put, settings
from tests.actors.trainer.runs import MORE, Killed, again, different, fresh, held, run

LORA = {"method": "lora", "dropout": 0.1, "lora_rank": 2}


def trained(small: str, tmp_path: Path, **method: object) -> tuple[Home, FakePort]:
    home, port = fresh(tmp_path / "home", settings(small, **method))
    run(home, port)
    return home, port


def tonight(port: FakePort) -> FakePort:
    """Return a port that asks for a consolidation once, and before anything else."""
    second = again(port)

    def asks(job: str | None) -> Wish | None:
        return Consolidate("lease") if job is None and not second.of(ConsolidationResult) else None

    second.asks = asks
    return second


def head_of(home: Home) -> Head:
    head = read_head(home)
    assert head is not None
    return head


def version(home: Home, number: int | None) -> VersionManifest:
    assert number is not None
    return read_record(home.version(number) / "manifest.json", VersionManifest)


def test_full_publishes_a_snapshot_once(small: str, tmp_path: Path) -> None:
    home, port = trained(small, tmp_path)
    before = held(home)
    second = run(home, tonight(port))
    (result,) = second.of(ConsolidationResult)
    assert (result.outcome, result.version) == ("promoted", 3)
    assert version(home, 3).kind == "snapshot"
    assert held(home)[0] == before[0]
    third = run(home, tonight(second))
    assert [one.outcome for one in third.of(ConsolidationResult)] == ["refused"]
    assert head_of(home).version == 3


def test_lora_merges_and_begins_anew(small: str, tmp_path: Path) -> None:
    home, port = trained(small, tmp_path, **LORA)
    before, old = head_of(home), held(home)
    second = run(home, tonight(port))
    (result,) = second.of(ConsolidationResult)
    assert (result.outcome, result.version) == ("promoted", 3), result.reason
    head = head_of(home)
    assert head.lineage == before.lineage
    assert head.version == 3
    assert second.of(Published)[-1].version == 3
    merged = version(home, 3)
    assert merged.kind == "consolidated"
    assert merged.weights_sha256 == old[0], "the merge says what was published"
    assert head.checkpoint is not None
    loaded = CheckpointStore(home, Disk(), TorchCodec()).load(head.checkpoint)
    assert loaded.manifest.base.weights_sha256 == merged.weights_sha256
    assert loaded.manifest.step == merged.step
    assert loaded.manifest.parent == before.checkpoint
    assert loaded.ledger == old[1]
    assert loaded.tensors["optimizer"] == {}
    assert all(not bool(one.any()) for name, one in loaded.tensors["adapter"].items() if "lora_B" in name)


def test_training_goes_on_from_the_merge_with_a_warm_up(small: str, tmp_path: Path) -> None:
    home, port = trained(small, tmp_path, **LORA)
    second = tonight(port)
    second.jobs = [put(home, "c.jsonl", MORE)]
    run(home, second)
    rates = [one.learning_rate for one in second.steps if one.id == "c.jsonl" and one.learning_rate]
    assert rates[0] == pytest.approx(1e-2 / 3)
    assert rates[3] == 1e-2
    assert version(home, head_of(home).version).step > version(home, 3).step


def test_resumed_after_the_merge_it_is_exact(small: str, tmp_path: Path) -> None:
    """Whoever merges and goes on, and whoever merges, dies, and goes on, hold the same bits."""
    ends = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        home, port = trained(small, tmp_path / name, **LORA)
        second = tonight(port)
        job = put(home, "c.jsonl", MORE)
        if name == "one":
            second.jobs = [job]
        run(home, second)
        if name == "two":
            torch.rand(3)
            third = again(second)
            third.jobs = [job]
            run(home, third)
        ends.append(held(home))
    assert different(ends[0][2], ends[1][2]) == []
    assert ends[0][:2] == ends[1][:2]


def test_a_merge_that_is_off_is_not_promoted(small: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home, port = trained(small, tmp_path, **LORA)
    before, old = head_of(home), held(home)

    def spoiled(folder: Path, settings: ModelSection) -> object:
        source = load_folder(folder, settings)
        with torch.no_grad():
            source.model.lm_head.weight.add_(0.01)
        return source

    monkeypatch.setattr(torch_engine, "load_folder", spoiled)
    second = tonight(port)
    second.jobs = [put(home, "c.jsonl", MORE)]
    run(home, second)
    (result,) = second.of(ConsolidationResult)
    assert result.outcome == "refused"
    assert "off by" in result.reason
    assert len(list(home.versions.iterdir())) == 3, "base, trained, and the one after c"
    assert head_of(home).lineage == before.lineage
    assert held(home)[1].committed[:2] == old[1].committed

    (tmp_path / "control").mkdir()
    control, port = trained(small, tmp_path / "control", **LORA)
    third = again(port)
    third.jobs = [put(control, "c.jsonl", MORE)]
    run(control, third)
    assert different(held(home)[2], held(control)[2]) == [], "a refused merge does not change the maths"


def test_killed_before_head_nothing_has_happened(small: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home, port = trained(small, tmp_path, **LORA)
    before, old = head_of(home), held(home)

    def dying(self: Keeper, lineage: Lineage, checkpoint: str | None, version: int | None) -> bool:
        raise Killed

    with monkeypatch.context() as patched:
        patched.setattr(Keeper, "move_head", dying)
        with pytest.raises(Killed):
            run(home, tonight(port))
    run(home, again(port))
    assert head_of(home) == before
    now = held(home)
    assert now[:2] == old[:2]
    assert different(now[2], old[2]) == []


def test_nothing_trained_nothing_to_consolidate(small: str, tmp_path: Path) -> None:
    home, port = fresh(tmp_path / "home", settings(small))
    port.jobs = []
    second = run(home, tonight(port))
    (result,) = second.of(ConsolidationResult)
    assert (result.outcome, result.reason) == ("refused", "nothing was trained yet")
    assert read_head(home) is None


def test_bfloat16_is_compared_with_a_bound_of_its_own() -> None:
    logits = torch.randn(4, 64, 100)
    rounded = logits + torch.randn_like(logits) * 0.005
    assert differ(logits, rounded, {torch.float32}) is not None
    assert differ(logits, rounded, {torch.bfloat16}) is None
    assert differ(logits, rounded + 0.1, {torch.bfloat16}) is not None
    assert differ(logits, logits * float("nan"), {torch.bfloat16}) is not None
