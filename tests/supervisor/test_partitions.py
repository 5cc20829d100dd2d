"""Work divided among like children by key."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter as Tally

import pytest

from supervisor import ChildSpec, PartitionRefs, SpecError, SupervisorSpec, open_tree, partitions
from supervisor.testing import EventLog, VirtualClock, eventually
from tests.supervisor.helpers import Counter, Fail, GetAll, Put
from tests.supervisor.otp.kit import lives
from tests.supervisor.process_actors import Noted, Route
from tests.supervisor.processes import process_child, task_child

pytestmark = pytest.mark.anyio
KEYS = [f"key {number}" for number in range(100)]


def _pool(count: int = 4) -> SupervisorSpec:
    return partitions("pool", count, lambda number: ChildSpec("any", Counter), intensity=7)


def test_the_specification() -> None:
    made: list[int] = []

    def make(number: int) -> ChildSpec:
        made.append(number)
        return ChildSpec("any", Counter, shutdown=float(number))

    spec = partitions("pool", 3, make, strategy="one_for_all", intensity=9)
    assert [(child.id, child.shutdown) for child in spec.children] == [("pool.0", 0), ("pool.1", 1), ("pool.2", 2)]  # type: ignore[union-attr]
    assert (spec.id, spec.strategy, spec.intensity, made) == ("pool", "one_for_all", 9, [0, 1, 2])


@pytest.mark.parametrize("count", [0, -1, True, 2.0])
async def test_a_senseless_count_is_refused(count: int) -> None:
    with pytest.raises(SpecError, match="whole number from 1"):
        partitions("pool", count, lambda number: ChildSpec("any", Counter))
    async with open_tree(SupervisorSpec("root")) as tree:
        with pytest.raises(SpecError, match="whole number from 1"):
            PartitionRefs(tree.ref, "pool", count)


async def test_a_key_belongs_to_one_partition_and_all_of_them_get_some() -> None:
    async with open_tree(SupervisorSpec("root", [_pool()])) as tree:
        refs = PartitionRefs(tree.ref, "pool", 4)
        assert ([ref.name for ref in refs], len(refs)) == (["pool.0", "pool.1", "pool.2", "pool.3"], 4)
        names = Tally(refs.by_key(key).name for key in range(4_000))
        assert len(names) == 4
        assert all(900 < count < 1_100 for count in names.values())
        for key in KEYS:
            refs.by_key(key).cast(Put(1))
            assert refs.by_key(key) == refs.by_key(key.encode())
        assert refs.by_key(7) == refs.by_key("7")
        sizes = [len(await ref.call(GetAll())) for ref in refs]
        assert sum(sizes) == 100
        assert all(sizes)


@pytest.mark.parametrize("seed", ["0", "1"])
async def test_the_partition_of_a_key_is_the_same_in_every_process(seed: str) -> None:
    """Python's own hash of a text is another one with each seed; also pinned, so that no version changes it."""
    program = (
        "from supervisor import PartitionRefs\n"
        "class Named(str): pass\n"
        "refs = PartitionRefs(Named, 'pool', 4)\n"
        "print(*(refs.by_key(key) for key in ['alice', 'bob', 'carol', b'alice', 42]))"
    )
    environment = {"PYTHONHASHSEED": seed, "PYTHONPATH": ":".join(sys.path)}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["pool.1", "pool.2", "pool.1", "pool.1", "pool.2"]


async def test_the_restart_of_one_disturbs_no_other_and_its_keys_stay_with_it() -> None:
    async with open_tree(SupervisorSpec("root", [_pool()]), clock=VirtualClock()) as tree:
        log = EventLog(tree.stream)
        refs = PartitionRefs(tree.ref, "pool", 4)
        before = {key: refs.by_key(key).name for key in KEYS}
        fallen = refs.by_key(KEYS[0])
        for ref in refs:
            ref.cast(Put(1))
        fallen.cast(Fail())
        fallen.cast(Put(2))
        await log.wait_for(event="started", actor=fallen.name, incarnation=2)
        assert {key: refs.by_key(key).name for key in KEYS} == before
        assert await lives(tree, "pool") == {ref.name: 2 if ref == fallen else 1 for ref in refs}
        assert [await ref.call(GetAll()) for ref in refs] == [[2] if ref == fallen else [1] for ref in refs]


@pytest.mark.parametrize("make", [process_child, task_child])
async def test_an_actor_routes_alike_in_a_process_of_its_own(make: type) -> None:
    pool = partitions("pool", 3, lambda number: task_child("any"))
    async with open_tree(SupervisorSpec("root", [pool, make("router")])) as tree:
        here = PartitionRefs(tree.ref, "pool", 3)
        there = await tree.ref("router").call(Route("pool", 3, KEYS))
        assert there == [here.by_key(key).name for key in KEYS]
        noted: list[int] = []
        for ref in here:
            mine = [number for number, name in enumerate(there) if name == ref.name]
            assert await ref.call(Noted()) == mine, "each in the order of its sender"
            noted += mine
        assert len(noted) == len(KEYS)
        await eventually(lambda: tree.dead_letters == {})
