"""Like children of one specification, among which work is divided by key (Elixir's ``PartitionSupervisor``)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from hashlib import blake2b
from typing import Any

from supervisor.errors import SpecError
from supervisor.ref import Ref
from supervisor.spec import ChildSpec, SupervisorSpec


def partitions(id: str, count: int, make: Callable[[int], ChildSpec], **options: Any) -> SupervisorSpec:
    """Specify a supervisor with ``count`` like children. That of number ``i``, from 0, is ``make(i)`` under ``ID.i``.

    Args:
        id: of the supervisor.
        options: the other fields of its :class:`SupervisorSpec`.

    Raises:
        SpecError: ``count`` is not a whole number from 1, or ``make`` returns something else.
    """
    _check(id, count)
    children = []
    for number in range(count):
        child = make(number)
        if not isinstance(child, ChildSpec | SupervisorSpec):
            raise SpecError(f"partitions {id!r}: make must return a ChildSpec, not {child!r}")
        children.append(replace(child, id=f"{id}.{number}"))
    return SupervisorSpec(id, children, **options)


class PartitionRefs:
    """The refs of all partitions, and which of them a key belongs to.

    ``PartitionRefs(tree.ref, "Worker", 4)``, or ``self.context.ref`` in an actor, also one in a process of its own.

    Raises:
        SpecError: ``count`` is not a whole number from 1.
    """

    __slots__ = ("_refs",)

    def __init__(self, ref: Callable[[str], Ref], id: str, count: int) -> None:
        _check(id, count)
        self._refs = [ref(f"{id}.{number}") for number in range(count)]

    def by_key(self, key: str | bytes | int) -> Ref:
        """Return the ref of the partition of this key: the same in every process, on every machine, after any restart.

        It changes with the number of partitions. A number is the same key as its digits, a text as its UTF-8.
        """
        # Not hash(): that of a text is another one in each process.
        data = key if isinstance(key, bytes) else str(key).encode()
        number = int.from_bytes(blake2b(data, digest_size=8).digest(), "big")
        return self._refs[number % len(self._refs)]

    def __iter__(self) -> Iterator[Ref]:
        return iter(self._refs)

    def __len__(self) -> int:
        return len(self._refs)


def _check(id: str, count: int) -> None:
    if not isinstance(count, int) or isinstance(count, bool) or count < 1:
        raise SpecError(f"partitions {id!r}: the count must be a whole number from 1, not {count!r}")
