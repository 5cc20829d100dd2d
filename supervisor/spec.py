"""Child and supervisor specifications: what is to run, and what to do when it does not.

The fields are those of OTP's ``child_spec()`` and ``sup_flags()``. Everything is checked when the specification is
made, so a mistake is refused before anything starts; an unknown field is a ``TypeError`` (OTP ignores it, which
elixir-lang/elixir#13675 regrets).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from supervisor.actor import Actor
from supervisor.backoff import Backoff
from supervisor.errors import SpecError
from supervisor.mailbox import Mailbox

RestartType = Literal["permanent", "transient", "temporary"]
ShutdownLimit = float | Literal["brutal_kill", "infinity"]
Strategy = Literal["one_for_one", "one_for_all", "rest_for_one"]
AutoShutdown = Literal["never", "any_significant", "all_significant"]
Isolation = Literal["task", "process", "guest"]


@dataclass(frozen=True, slots=True)
class Escalate:
    """On giving up, the supervisor stops its children and ends with ``Shutdown``; its own supervisor decides."""


@dataclass(frozen=True, slots=True)
class CoolDown:
    """On giving up, wait so many seconds and try again, for ever. Also when the child fails at boot."""

    seconds: float

    def __post_init__(self) -> None:
        if not (math.isfinite(self.seconds) and self.seconds > 0):
            raise SpecError(f"cool-down: a positive number of seconds is wanted, not {self.seconds!r}")


OnGiveUp = Escalate | CoolDown


@dataclass(frozen=True, slots=True)
class ProcessStart:
    """How to start an actor in a process of its own.

    ``target`` is ``"module:Class"``; ``arguments`` is evaluated at each start and gives the keyword arguments of the
    class, which must be encodable as msgpack; ``preload`` names modules that the process host imports once, in
    advance; ``environment`` is added to the environment of the host. Children of one ``one_for_all`` supervisor whose
    ``preload`` and ``environment`` are the same are forked from one host.
    """

    target: str
    arguments: Callable[[], dict[str, Any]] = dict
    preload: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        # A class or a function here is the usual slip, of whoever thinks of multiprocessing.
        module, _, name = self.target.partition(":") if isinstance(self.target, str) else ("", "", "")
        if not (name.isidentifier() and all(part.isidentifier() for part in module.split("."))):
            raise SpecError(f"process start: the target must read 'module:Class', not {self.target!r}")
        if module == "__main__":
            raise SpecError(
                f"process start: {self.target} is of the program itself, which a process of its own does not run; put "
                f"{name} into a module of its own, and that module's name here"
            )
        if not callable(self.arguments):
            raise SpecError(f"process start of {self.target}: arguments must be a function that returns a dict")
        if not isinstance(self.preload, tuple) or not all(isinstance(module, str) for module in self.preload):
            raise SpecError(f"process start of {self.target}: preload must be a tuple of names, not {self.preload!r}")
        for name, value in self.environment.items():
            if not name or "=" in name or "\0" in f"{name}{value}" or not isinstance(value, str):
                raise SpecError(f"process start of {self.target}: not an environment variable: {name!r}={value!r}")


@dataclass(frozen=True, slots=True)
class GuestPlace:
    """Stands for the start of a child that nobody here starts: it joins (see ``supervisor.join``).

    ``mailbox`` says what waits for it while it is away, and how much; that of its own class is not used.
    """

    mailbox: Mailbox = Mailbox()  # noqa: RUF009  (frozen)


@dataclass(frozen=True, slots=True)
class ChildSpec:
    """One actor under a supervisor. ``id`` is also its name, and unique in the whole tree.

    ``shutdown`` is the time in seconds that it has to stop in, ``"brutal_kill"`` (processes only: a task cannot
    honestly be killed) or ``"infinity"``. ``start_timeout`` limits its ``on_start``, in seconds. ``liveness``: seconds
    without a beat after which it is ended and restarted; ``None``: never. ``on_give_up``: ``None`` takes the
    supervisor's. For ``isolation="guest"`` see :func:`joinable`.
    """

    id: str
    start: Callable[[], Actor] | ProcessStart | GuestPlace
    restart: RestartType = "permanent"
    shutdown: ShutdownLimit = 5.0
    significant: bool = False
    isolation: Isolation = "task"
    start_timeout: float = 30.0
    liveness: float | None = None
    on_give_up: OnGiveUp | None = None

    def __post_init__(self) -> None:
        where = _check_common(self.id, self.restart, self.on_give_up)
        _one_of(where, "isolation", self.isolation, ("task", "process", "guest"))
        if self.isolation == "process" and not isinstance(self.start, ProcessStart):
            raise SpecError(f"{where}: a process child is started by a ProcessStart, not {self.start!r}")
        if self.isolation == "guest":
            self._check_guest(where)
        if self.isolation == "task" and isinstance(self.start, ProcessStart):
            raise SpecError(f"{where}: a ProcessStart wants isolation='process' beside it")
        if self.isolation == "task" and (isinstance(self.start, GuestPlace) or not callable(self.start)):
            raise SpecError(f"{where}: start must be a function that returns an Actor, not {self.start!r}")
        if self.shutdown == "brutal_kill" and self.isolation == "task":
            raise SpecError(f"{where}: brutal_kill of a task is refused: only a process can be killed")
        if self.shutdown not in ("brutal_kill", "infinity"):
            _seconds(where, "shutdown", self.shutdown, least=0.0)
        _seconds(where, "start_timeout", self.start_timeout)
        if self.liveness is not None:
            _seconds(where, "liveness", self.liveness)
        if self.significant and self.restart == "permanent":
            raise SpecError(f"{where}: a permanent child cannot be significant, since it never ends by itself")

    def _check_guest(self, where: str) -> None:
        if not isinstance(self.start, GuestPlace):
            raise SpecError(f"{where}: a guest is not started: start must be a GuestPlace, not {self.start!r}")
        if self.restart != "permanent":
            raise SpecError(f"{where}: the place of a guest is permanent: whether it joins again is its own affair")
        if self.shutdown == "brutal_kill":
            raise SpecError(f"{where}: brutal_kill of a guest is refused: its process is not ours to kill")
        if self.on_give_up is not None:
            raise SpecError(f"{where}: on_give_up of a guest is refused: that it is away makes nobody give up")


def joinable(
    id: str,
    *,
    mailbox: Mailbox = Mailbox(),  # noqa: B008  (frozen)
    shutdown: float | Literal["infinity"] = 5.0,
    start_timeout: float = 30.0,
    liveness: float | None = None,
) -> ChildSpec:
    """Declare a name that a process from outside may serve: it joins through the control socket of the tree.

    Its supervisor never starts it and never misses it: that it is away, or ends, costs no restart, and no other child
    waits for it. Calls fail at once as not running meanwhile, and casts wait in ``mailbox``. When the supervisor stops,
    the guest is asked to stop, and after ``shutdown`` seconds the link to it is cut.

    Args:
        id: the name, unique in the tree.
        mailbox: what may wait for the guest, and what happens to one message more.
        shutdown: seconds that it has to stop in.
        start_timeout: seconds from the join to the ack of its ``on_start``; then the link is cut.
        liveness: seconds without a beat after which the link is cut; ``None``: never.

    Raises:
        SpecError: a value that makes no sense.
    """
    return ChildSpec(
        id,
        GuestPlace(mailbox),
        shutdown=shutdown,
        isolation="guest",
        start_timeout=start_timeout,
        liveness=liveness,
    )


@dataclass(frozen=True, slots=True)
class SupervisorSpec:
    """A supervisor with its children, in start order. It is itself a child where it stands in another's list.

    At most ``intensity`` restarts in any ``period`` seconds; one more and it gives up (``on_give_up``). ``backoff``:
    delays between restarts, ``None`` for none. ``auto_shutdown``: whether the ends of significant children end it.
    ``max_children``: how many it may have, whatever they are doing, ``None`` for any. ``restart`` and ``significant``
    are for its own supervisor. ``dynamic``: no child depends on another; all are started at run time, and when it
    stops they end all at once, not in reverse order (OTP's ``simple_one_for_one``).
    """

    id: str
    children: Sequence[ChildSpec | SupervisorSpec] = ()
    strategy: Strategy = "one_for_one"
    intensity: int = 3
    period: float = 5.0
    backoff: Backoff | None = None
    auto_shutdown: AutoShutdown = "never"
    restart: RestartType = "permanent"
    significant: bool = False
    on_give_up: OnGiveUp = Escalate()
    max_children: int | None = None
    dynamic: bool = False

    def __post_init__(self) -> None:
        where = _check_common(self.id, self.restart, self.on_give_up, what="supervisor")
        _one_of(where, "strategy", self.strategy, ("one_for_one", "one_for_all", "rest_for_one"))
        _one_of(where, "auto_shutdown", self.auto_shutdown, ("never", "any_significant", "all_significant"))
        _whole(where, "intensity", self.intensity)
        if self.max_children is not None:
            _whole(where, "max_children", self.max_children)
        _seconds(where, "period", self.period)
        if self.significant and self.restart == "permanent":
            raise SpecError(f"{where}: a permanent child cannot be significant, since it never ends by itself")
        self._check_backoff(where)
        if self.dynamic and self.strategy != "one_for_one":
            raise SpecError(f"{where}: dynamic children do not depend on each other, so the strategy is one_for_one")
        if self.dynamic and self.auto_shutdown != "never":
            raise SpecError(f"{where}: dynamic children cannot be significant, so auto_shutdown is 'never'")
        if not isinstance(self.children, Iterable):
            raise SpecError(f"{where}: children must be a list of specifications, not {self.children!r}")
        object.__setattr__(self, "children", tuple(self.children))  # checked once, so it must not change afterwards
        if self.dynamic and self.children:
            raise SpecError(f"{where}: dynamic children are started at run time, and there are {len(self.children)}")
        if self.max_children is not None and len(self.children) > self.max_children:
            raise SpecError(f"{where}: max_children is {self.max_children}, and there are {len(self.children)}")
        seen = {self.id}
        for child in self.children:
            self.check_child(child)
            for name in names_in(child):
                if name in seen:
                    raise SpecError(f"{where}: the id {name!r} is used twice")
                seen.add(name)

    def check_child(self, child: ChildSpec | SupervisorSpec) -> None:
        """Refuse a child that this supervisor could not have: of a wrong type, or significant without auto_shutdown."""
        if not isinstance(child, ChildSpec | SupervisorSpec):
            raise SpecError(f"supervisor {self.id!r}: not a child specification: {child!r}")
        if child.significant and self.auto_shutdown == "never":
            raise SpecError(f"supervisor {self.id!r}: {child.id!r} is significant, but auto_shutdown is 'never'")

    def _check_backoff(self, where: str) -> None:
        if self.backoff is None:
            return
        if not isinstance(self.backoff, Backoff):
            raise SpecError(f"{where}: backoff must be a Backoff or None, not {self.backoff!r}")
        spread = self.backoff.longest_spread(self.intensity)
        if spread > self.period:
            raise SpecError(
                f"{where}: with this backoff {self.intensity + 1} failures take {spread:g} s, longer than the period "
                f"of {self.period:g} s, so it would never give up; lower first, factor or intensity, or raise period"
            )


def names_in(spec: ChildSpec | SupervisorSpec) -> Iterator[str]:
    """Yield the id of a specification and of everything below it, in start order."""
    yield spec.id
    if isinstance(spec, SupervisorSpec):
        for child in spec.children:
            yield from names_in(child)


def _check_common(id: str, restart: str, on_give_up: OnGiveUp | None, what: str = "child") -> str:
    if not isinstance(id, str) or not id or "/" in id or id != id.strip():
        raise SpecError(f"{what}: the id must be a name without slashes or outer blanks, not {id!r}")
    where = f"{what} {id!r}"
    _one_of(where, "restart", restart, ("permanent", "transient", "temporary"))
    if on_give_up is not None and not isinstance(on_give_up, Escalate | CoolDown):
        raise SpecError(f"{where}: on_give_up must be Escalate() or CoolDown(seconds), not {on_give_up!r}")
    return where


def _one_of(where: str, key: str, value: object, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise SpecError(f"{where}: {key} must be one of {', '.join(allowed)}, not {value!r}")


def _whole(where: str, key: str, value: object) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise SpecError(f"{where}: {key} must be a whole number from 0, not {value!r}")


def _seconds(where: str, key: str, value: object, least: float | None = None) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise SpecError(f"{where}: {key} must be a number of seconds, not {value!r}")
    if value < 0 or (least is None and value == 0):
        raise SpecError(f"{where}: {key} must be {'positive' if least is None else 'at least 0'}, not {value!r}")
