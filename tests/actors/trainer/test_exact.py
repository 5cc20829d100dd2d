"""A run that was stopped or killed anywhere, and resumed, holds the same bits as one that nobody disturbed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest
import torch

from actors.trainer import rng
from actors.trainer.port import LetGo, Wish
from tests.actors.trainer.fake_port import settings
from tests.actors.trainer.runs import Killed, again, different, fresh, held, kill_at, run, stop_at

LORA: dict[str, Any] = {"method": "lora", "dropout": 0.1, "lora_rank": 4}
FULL: dict[str, Any] = {"method": "full"}


def same(one: Any, other: Any) -> None:
    assert different(one[2], other[2]) == []
    assert one[:2] == other[:2]


@pytest.fixture(scope="module")
def controls(small: str, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What an undisturbed run of each method holds in the end."""
    found = {}
    for method in (FULL, LORA):
        home, port = fresh(tmp_path_factory.mktemp("control") / "home", settings(small, **method))
        run(home, port)
        assert port.steps[-1].global_step > 12
        found[method["method"]] = held(home)
    return found


@pytest.fixture(params=[FULL, LORA], ids=["full", "lora"])
def undisturbed(request: pytest.FixtureRequest, controls: dict[str, Any]) -> Any:
    """The method, and what an undisturbed run of it holds in the end."""
    return request.param, controls[request.param["method"]]


def test_another_process_goes_on(small: str, tmp_path: Path, controls: dict[str, Any]) -> None:
    homes, arguments = [], []
    for method in (FULL, LORA):
        home, port = fresh(tmp_path / method["method"], settings(small, **method))
        port.asks = stop_at(port, 7)
        run(home, port)
        assert port.steps[-1].global_step == 7
        jobs = msgspec.json.encode(port.jobs).decode()
        arguments += [str(home.root), msgspec.json.encode(port.settings).decode(), jobs]
        homes.append(home)
    subprocess.run([sys.executable, "-m", "tests.actors.trainer.runs", *arguments], check=True, timeout=60)
    for home, control in zip(homes, controls.values(), strict=True):
        same(held(home), control)


@pytest.mark.parametrize("step", [1, 5, 11])
def test_killed_between_checkpoints(small: str, tmp_path: Path, undisturbed: Any, step: int) -> None:
    method, control = undisturbed
    home, port = fresh(tmp_path / "home", settings(small, {"every_steps": 3}, **method))
    kill_at(port, step)
    with pytest.raises(Killed):
        run(home, port)
    torch.rand(5)  # whatever happened in between
    second = run(home, again(port))
    assert next(one.global_step for one in second.steps if one.phase == "training") == step // 3 * 3
    same(held(home), control)


def test_stopped_again_and_again(small: str, tmp_path: Path, undisturbed: Any) -> None:
    method, control = undisturbed
    home, port = fresh(tmp_path / "home", settings(small, **method))
    for step in (2, 3, 9, 10):
        port.asks = stop_at(port, step)
        run(home, port)
        port = again(port)
    run(home, port)
    same(held(home), control)


def test_checkpoints_and_versions_change_nothing(small: str, tmp_path: Path, undisturbed: Any) -> None:
    method, control = undisturbed
    config = settings(small, {"every_steps": 1}, **method)
    config = msgspec.structs.replace(config, publish=msgspec.structs.replace(config.publish, every=0.0))
    home, port = fresh(tmp_path / "home", config)
    run(home, port)
    assert len(list(home.versions.iterdir())) > 3
    same(held(home), control)


def test_a_random_number_drawn_once_too_often_shows(
    small: str, tmp_path: Path, undisturbed: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    method, control = undisturbed
    home, port = fresh(tmp_path / "home", settings(small, **method))
    port.asks = stop_at(port, 7)
    run(home, port)
    restore = rng.restore

    def drawn(tensors: rng.Tensors, state: dict[str, Any]) -> None:
        restore(tensors, state)
        torch.rand(1)

    monkeypatch.setattr(rng, "restore", drawn)
    run(home, again(port))
    apart = different(held(home)[2], control[2])
    if method["method"] == "lora":
        assert sum(name.startswith("adapter/") for name in apart) == len(control[2]["adapter"])
    else:
        assert apart == ["rng/cpu"], "full fine-tuning of this model draws nothing, so that it cannot show"


def test_skipped_half_way(small: str, tmp_path: Path) -> None:
    """Every row is counted once, in the ledger and in the number of optimizer steps."""
    home, port = fresh(tmp_path / "home", settings(small))

    def asks(job: str | None) -> Wish | None:
        once = job == "a.jsonl" and port.steps[-1].step >= 3 and not port.of("release")
        return LetGo("a.jsonl", "skip") if once else None

    port.asks = asks
    run(home, port)
    assert [one[1] for one in port.of("trained")] == ["b.jsonl", "a.jsonl"]
    ledger = held(home)[1]
    assert {entry.job: entry.stats.samples for entry in ledger.committed} == {"a.jsonl": 20, "b.jsonl": 20}
    assert sum(entry.stats.steps for entry in ledger.committed) == port.steps[-1].global_step
    assert ledger.cursors == ()
