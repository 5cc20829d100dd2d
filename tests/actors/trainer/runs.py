"""Runs sessions to their end, and says all that the weights and the ledger hold afterwards."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import torch

from actors.trainer.checkpoint import CheckpointStore
from actors.trainer.port import Stop, Wish
from actors.trainer.session import Session
from actors.trainer.torch_engine import TorchEngine
from actors.trainer.torch_tensors import TorchCodec
from protocol.config import Config
from protocol.home import Home
from protocol.messages.trainer import Progress
from protocol.records import Ledger, VersionManifest, read_head, read_record
from supervisor.durable import Disk
from tests.actors.trainer.fake_port import FakePort, make_home, put

ROWS = [{"text": f"row {n}: " + "and so on " * (n % 4)} for n in range(20)]
MORE = [{"prompt": f"what is {n} and {n}?", "completion": f" it is {2 * n}"} for n in range(20)]


class Killed(BaseException):
    """Stands for SIGKILL: nothing of ours may catch it."""


def fresh(root: Path, config: Config) -> tuple[Home, FakePort]:
    """Return a home with two files claimed one after the other, and the port that hands them out."""
    root.mkdir()
    home = make_home(root)
    return home, FakePort(config, [put(home, "a.jsonl", ROWS), put(home, "b.jsonl", MORE)])


def run(home: Home, port: FakePort) -> FakePort:
    Session(home, Disk(), port, TorchEngine()).run()
    return port


def stop_at(port: FakePort, step: int) -> Callable[[str | None], Wish | None]:
    """Ask for a stop once the lineage has made so many steps."""
    return lambda job: Stop() if port.steps and port.steps[-1].global_step >= step else None


def kill_at(port: FakePort, step: int) -> None:
    """Die when the lineage's ``step``-th step is told."""
    tell = port.progress

    def progress(progress: Progress) -> None:
        tell(progress)
        if progress.global_step == step:
            raise Killed

    port.progress = progress  # type: ignore[method-assign]


def again(port: FakePort, **changes: Any) -> FakePort:
    """Return the port that the next process gets: the same files, nothing asked."""
    return FakePort(port.settings, [*port.awaiting, *port.jobs], **changes)


def held(home: Home) -> tuple[str, Ledger, dict[str, dict[str, torch.Tensor]]]:
    """Return the published weights' sha256, the ledger, and every tensor of HEAD's checkpoint."""
    head = read_head(home)
    assert head is not None
    assert head.checkpoint is not None
    assert head.version is not None
    version = read_record(home.version(head.version) / "manifest.json", VersionManifest)
    loaded = CheckpointStore(home, Disk(), TorchCodec()).load(head.checkpoint)
    assert version.ledger == loaded.ledger
    return version.weights_sha256, loaded.ledger, loaded.tensors


def different(one: dict[str, dict[str, torch.Tensor]], other: dict[str, dict[str, torch.Tensor]]) -> list[str]:
    """Return the names of the tensors that differ in any bit."""
    assert one.keys() == other.keys()
    return [
        f"{stem}/{name}"
        for stem in one
        for name in one[stem].keys() | other[stem].keys()
        if not torch.equal(one[stem][name], other[stem][name])
    ]


def leftovers(home: Home) -> list[Path]:
    """Return what is half written or half removed."""
    return [*home.root.rglob(".tmp-*"), *home.root.rglob(".trash-*")]


def main(arguments: list[str]) -> None:
    """Go on in another process: pairs of a home's folder and a port's settings and jobs, as JSON."""
    from protocol.messages.queue import Claimed

    for root, config, jobs in zip(*[iter(arguments)] * 3, strict=True):
        port = FakePort(msgspec.json.decode(config, type=Config), msgspec.json.decode(jobs, type=list[Claimed]))
        run(Home(Path(root)), port)


if __name__ == "__main__":
    import sys

    main(sys.argv[1:])
