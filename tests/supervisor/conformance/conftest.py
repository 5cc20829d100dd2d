"""The cases run with tasks and with processes, which come from a host that stays warm for all cases of a module."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import anyio
import pytest

from supervisor import custody, hosts
from supervisor.hosting import ProcessHost
from tests.supervisor.conformance.kit import Kind


class WarmHost(ProcessHost):
    """Outlives the trees that use it."""

    async def end(self) -> None:
        await self.settle()

    async def end_for_good(self) -> None:
        await super().end()


Warm = dict[tuple[str, tuple[str, ...]], WarmHost]


@pytest.fixture(scope="module")
def warm_hosts() -> Iterator[Warm]:
    """By event loop and by what is imported."""
    kept: Warm = {}
    yield kept
    for (backend, _), host in kept.items():
        anyio.run(host.end_for_good, backend=backend)


@pytest.fixture
def warm(anyio_backend: str, warm_hosts: Warm, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Process children come from the warm hosts, where the host is not what the case is about."""

    def warm_host(preload: tuple[str, ...], environment: Mapping[str, str], *, shared: bool = False) -> ProcessHost:
        assert not environment
        key = (anyio_backend, preload)
        if key not in warm_hosts:
            warm_hosts[key] = WarmHost(preload, environment, shared=True)
        return warm_hosts[key]

    monkeypatch.setattr(hosts, "ProcessHost", warm_host)
    yield
    for host in warm_hosts.values():
        assert host.pid is None or custody.descendants(host.pid) == [], "the case has left something behind"


@pytest.fixture(params=["task", "process"])
def kind(request: pytest.FixtureRequest) -> Kind:
    """What the children of a case are."""
    if request.param == "process":
        request.getfixturevalue("warm")
    return Kind(request.param)
