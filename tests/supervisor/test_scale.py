"""Starting and stopping children stays near linear (``simple_one_for_one_scale_many_temporary_children`` in OTP)."""

from __future__ import annotations

import time

import pytest

from supervisor import Actor, ChildSpec, SupervisorSpec, open_tree

pytestmark = pytest.mark.anyio


async def _seconds_a_child(count: int, *, dynamic: bool) -> float:
    specs = [ChildSpec(str(number), Actor, restart="temporary") for number in range(count)]
    begun = time.perf_counter()
    async with open_tree(SupervisorSpec("root", () if dynamic else specs)) as tree:
        root = tree.supervisor("root")
        if dynamic:
            for spec in specs:
                await root.start_child(spec)
        assert (await root.count_children()).active == count
    return (time.perf_counter() - begun) / count


@pytest.mark.parametrize("dynamic", [True, False])
async def test_many_children_cost_about_the_same_each(dynamic: bool) -> None:
    # Quadratic work would show as a factor of ten; a busy machine alone makes it two or three.
    few = min([await _seconds_a_child(300, dynamic=dynamic) for _ in range(3)])
    many = await _seconds_a_child(3_000, dynamic=dynamic)
    assert many < 5 * few
