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


@pytest.fixture(scope="module")
def warm_hosts() -> Iterator[dict[str, WarmHost]]:
    kept: dict[str, WarmHost] = {}
    yield kept
    for backend, host in kept.items():
        anyio.run(host.end_for_good, backend=backend)


@pytest.fixture(params=["task", "process"])
def kind(
    request: pytest.FixtureRequest,
    anyio_backend: str,
    warm_hosts: dict[str, WarmHost],
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Kind]:
    """What the children of a case are."""
    kind = Kind(request.param)
    if request.param == "task":
        yield kind
        return

    def warm_host(preload: tuple[str, ...], environment: Mapping[str, str], *, shared: bool = False) -> ProcessHost:
        if anyio_backend not in warm_hosts:
            warm_hosts[anyio_backend] = WarmHost(preload, environment, shared=True)
        return warm_hosts[anyio_backend]

    monkeypatch.setattr(hosts, "ProcessHost", warm_host)
    yield kind
    pid = warm_hosts[anyio_backend].pid
    assert pid is None or custody.descendants(pid) == [], "the case has left something behind"
