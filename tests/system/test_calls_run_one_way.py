"""An actor calls only actors that start before it, so that no two ever wait for each other."""

from __future__ import annotations

from pathlib import Path

import pytest

from actors.daemon import Parts, daemon_tree
from actors.settings_store import ConfigStore
from protocol.config import Config
from protocol.home import Home
from supervisor import ChildSpec, SupervisorSpec
from tests.system.calls import ROOT, Site, Unclear, sites, waits

OWNERS = {
    "actors/lock_keeper.py": "LockKeeper",
    "actors/disk_monitor.py": "DiskMonitor",
    "actors/queue/": "QueueManager",
    "actors/control_socket.py": "ControlSocket",
    "actors/trainer/": "TrainerActor",
    "actors/testing/": "TrainerActor",
    "actors/inbox/": "InboxWatcher",
    "actors/consolidator/": "Consolidator",
    "actors/metrics_exporter.py": "MetricsExporter",
    "actors/signal_handler.py": "SignalHandler",
}
ROUTER = "supervisor/router.py"
"""Hands on what clients ask, to whomever they name, and waits for nothing."""


def start_order(spec: ChildSpec | SupervisorSpec) -> list[str]:
    if isinstance(spec, ChildSpec):
        return [spec.id]
    return [name for child in spec.children for name in start_order(child)]


def all_calls() -> list[tuple[str, Site]]:
    """Return every call below ``actors/`` with the name of the actor that makes it."""
    found = []
    for path in sorted((ROOT / "actors").rglob("*.py")):
        where = path.relative_to(ROOT).as_posix()
        for site in sites(path.read_text(), where):
            owners = [owner for prefix, owner in OWNERS.items() if where.startswith(prefix)]
            assert owners, f"{site.where} calls {site.target}: on behalf of which actor?"
            found.append((owners[0], site))
    return found


def test_calls_run_one_way(tmp_path: Path) -> None:
    order = start_order(daemon_tree(Parts(Home(tmp_path), ConfigStore(Config()))))
    assert set(OWNERS.values()) == set(order)
    calls = all_calls()
    for caller, site in calls:
        assert site.target in order, f"{site.where}: there is no actor {site.target}"
        assert order.index(site.target) < order.index(caller), f"{site.where}: {caller} calls {site.target}"
    assert {("TrainerActor", "QueueManager"), ("TrainerActor", "DiskMonitor"), ("InboxWatcher", "QueueManager")} <= {
        (caller, site.target) for caller, site in calls
    }, "calls that are there were not seen"


def test_the_router_waits_for_nobody() -> None:
    source = (ROOT / ROUTER).read_text()
    assert ".on_done(" in source, "what it asks is answered elsewhere: look there"
    assert not waits(source)


@pytest.mark.parametrize(
    ("body", "target"),
    [
        ('self.context.ref("A").call(x)', "A"),
        ("self.context.ref(ONE).request(x, timeout=1)", "One"),
        ("self.context.ref(QUEUE).call(x)", "QueueManager"),
        ("it = self.context.ref(TWO)\n    it.call(x)", "Two"),
        ("def inner():\n        self.context.ref(ONE).call(x)", "One"),
    ],
)
def test_a_call_is_seen_however_it_is_written(body: str, target: str) -> None:
    source = f'from actors.trainer.actor_port import QUEUE\nONE, TWO = "One", "Two"\ndef f(self, x):\n    {body}\n'
    assert [site.target for site in sites(source, "here")] == [target]


def test_a_call_by_way_of_a_function_is_seen() -> None:
    source = (
        'def _call(self, to, x):\n    self.context.ref(to).call(x)\ndef f(self):\n    self._call("B", 1)\n'
        'async def g(self):\n    await self._call("C", 1)\n'
    )
    assert sorted(site.target for site in sites(source, "here")) == ["B", "C"]


@pytest.mark.parametrize("who", ["x.peer", "self.context.ref(x.name)", "self.context.ref(name)"])
def test_a_call_to_somebody_unknown_is_an_error(who: str) -> None:
    with pytest.raises(Unclear, match="here:2"):
        list(sites(f"def f(self, x):\n    {who}.call(x)\n", "here"))
