"""What a supervisor remembers of one child, over all its incarnations; also the keeper that each incarnation tells."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Literal

from supervisor.errors import BootRefused, Stuck
from supervisor.limits import kill_grace, stop_limit
from supervisor.mailbox import Cell, LostWhy, Phase
from supervisor.reasons import Killed, Reason, StartFailed, Timeout, is_clean
from supervisor.reports import report_crash, report_lifecycle
from supervisor.spec import ChildSpec, GuestPlace, SupervisorSpec, names_in

if TYPE_CHECKING:
    from supervisor.alarms import Alarm
    from supervisor.incarnation import Incarnation
    from supervisor.runtime import TreeRuntime
    from supervisor.tally import Series


class Status(StrEnum):
    """What a child is doing, as ``which_children`` and the tree view show it."""

    NEW = "not started"
    STARTING = "starting"
    RUNNING = "running"
    EXITED = "exited"
    """Ending or ended by itself, and the supervisor has not come to it yet."""
    RESTARTING = "restarting"
    WAITING = "waiting"
    """Stopped because of a sibling, and started again with it."""
    COOLING = "cooling down"
    STOPPING = "stopping"
    STOPPED = "stopped"
    ABSENT = "absent"
    """The place of a guest, which may join at any time."""
    STUCK = "stuck"
    SUSPENDED = "suspended"
    """Runs, and handles nothing until it is resumed. Only shown: to its supervisor it runs."""


Fate = Literal["own", "again", "final"]


class ChildRecord:
    """One child of one supervisor. Implements :class:`~supervisor.incarnation.Keeper` for its incarnations."""

    __slots__ = (
        "aborted",
        "attempt",
        "cell",
        "due",
        "exit",
        "fate",
        "incarnation",
        "last_reason",
        "overdue",
        "ran_for",
        "restarts",
        "resume",
        "retried",
        "runtime",
        "series",
        "spec",
        "started",
        "started_at",
        "status",
        "supervisor_id",
        "told",
    )

    def __init__(
        self, spec: ChildSpec | SupervisorSpec, supervisor_id: str, runtime: TreeRuntime, series: Series
    ) -> None:
        self.spec = spec
        self.supervisor_id = supervisor_id
        self.runtime = runtime
        self.series = series
        """Where its ends and restarts are counted."""
        # All names below as well, from now on: what is said to an actor before its supervisor comes to it waits for it.
        for name in names_in(spec):
            cell = runtime.registry.declare(name)
            if cell.phase is not Phase.RESTARTING:
                cell.phase = Phase.DECLARED
        self.cell: Cell = runtime.cell(spec.id)
        if isinstance(spec, SupervisorSpec):
            # Supervisors take requests by SupervisorRef; a message to their name is a dead letter.
            self.cell.bound = 0
            self.cell.overflow = "drop_newest"
        self.status = Status.NEW
        self.incarnation: Incarnation | None = None
        """The one that lives; ``None`` between two."""
        self.exit: Reason | None = None
        """Why it ended, until the supervisor has dealt with it."""
        self.last_reason: Reason | None = None
        self.told: Reason | None = None
        """The reason that was given when its end began."""
        self.overdue: Alarm | None = None
        """Set while it ends by itself: nobody else measures how long that takes."""
        self.fate: Fate = "own"
        """Who ends it: it itself, or the supervisor, to start it again or for good."""
        self.retried = False
        """Whether a failing start will be tried again."""
        self.aborted = False
        """A request to terminate it waits while it is being started."""
        self.resume = False
        """Stuck, and wanted again as soon as it has ended."""
        self.started = False
        """Whether the newest incarnation has acked, whatever became of it since."""
        self.restarts = 0
        self.attempt = 0
        self.due = 0.0
        self.started_at: float | None = None
        self.ran_for = 0.0
        """How long the newest incarnation ran well, in seconds: neither its last silence nor its clean-up counts."""

    @property
    def id(self) -> str:
        return self.spec.id

    @property
    def alive(self) -> bool:
        """True from the start of an incarnation until nothing of it is left."""
        return self.incarnation is not None

    @property
    def place(self) -> GuestPlace | None:
        """Set where nobody here starts it, but a guest joins."""
        start = self.spec.start if isinstance(self.spec, ChildSpec) else None
        return start if isinstance(start, GuestPlace) else None

    @property
    def is_guests_own_end(self) -> bool:
        """Whether the end of its incarnation leaves its place open for the next guest."""
        return self.fate == "own" and self.place is not None

    @property
    def is_current(self) -> bool:
        """False for one that was left stuck and whose name has another record by now."""
        return self.runtime.children.get(self.id) is self

    @property
    def shown_status(self) -> str:
        if self.id in self.runtime.stuck:
            return Status.STUCK
        suspended = self.status is Status.RUNNING and self.incarnation is not None and self.incarnation.suspended
        return Status.SUSPENDED if suspended else self.status

    def begin(self, incarnation: Incarnation, *, retried: bool) -> None:
        """A new incarnation is about to start."""
        self.incarnation = incarnation
        self.exit = None
        self.fate = "own"
        self.started = False
        self.cell.system = None  # what was left for the incarnation before is not for this one
        self.retried = retried
        self.status = Status.STARTING
        if isinstance(self.spec, SupervisorSpec):
            self.cell.phase = Phase.DECLARED
        elif self.cell.phase is not Phase.RESTARTING:
            self.cell.phase = Phase.STARTING

    def open_place(self) -> None:
        """A guest may join from now on. Casts wait for it, and calls fail."""
        assert self.place is not None
        self.status = Status.ABSENT
        self.fate = "own"
        self.exit = None
        self.started = True  # nobody waits for an ack
        self.cell.phase = Phase.DECLARED
        self.cell.configure(self.place.mailbox)

    def leave(self, fate: Fate) -> None:
        """The supervisor ends it: from here on calls fail, and casts wait if it is to come back."""
        self.fate = fate
        self.status = Status.STOPPING
        self._enter(Phase.RESTARTING if fate == "again" else Phase.STOPPING)

    def settle_stopped(self, why: LostWhy) -> None:
        """It has ended for good, or until somebody starts it by hand; and so have all names below it."""
        self.status = Status.STOPPED
        self.exit = None
        for name in names_in(self.spec):
            if name == self.id or name not in self.runtime.children:
                self.runtime.cell(name).bury(why)

    def settle_waiting(self) -> None:
        """It has ended with its supervisor, and comes back with it."""
        self.exit = None
        self.cell.phase = Phase.RESTARTING

    # -- told by the incarnation

    def acked(self, incarnation: Incarnation) -> None:
        self.started = True
        self.started_at = self.runtime.clock.monotonic()
        if self.retried and self.last_reason is not None:
            self.restarts += 1
            self.series.restarts += 1
        self.status = Status.RUNNING
        if isinstance(self.spec, ChildSpec):
            self.cell.phase = Phase.RUNNING
            self.runtime.introspection.started(self)
        report_lifecycle(self, "started")
        self._tell_supervisor()

    def ending(self, incarnation: Incarnation, reason: Reason) -> bool:
        if self.started_at is not None:
            silence = reason.silence if isinstance(reason, Timeout) else 0.0
            self.ran_for = self.runtime.clock.monotonic() - self.started_at - silence
        if self.fate == "own":
            self.status = Status.EXITED
            limit, grace = stop_limit(self.spec), kill_grace(self.spec)
            if limit is not None and grace is not None:
                due = self.runtime.clock.monotonic() + limit + grace
                self.overdue = self.runtime.alarms.at(due, self.report_stuck)
        return self._tell_end(incarnation, reason)

    def ended(self, incarnation: Incarnation, reason: Reason) -> None:
        if reason is not self.told:  # the clean-up failed
            self._tell_end(incarnation, reason)
        if self.overdue is not None:
            self.overdue.cancel()
            self.overdue = None
        self.incarnation = self.told = self.started_at = None
        self.exit = self.last_reason = reason
        self.series.ended(reason)
        if self.fate == "final" and self.is_current:
            self.cell.phase = Phase.ENDED
        self.runtime.stuck.pop(self.id, None)
        if is_away := self.is_guests_own_end:
            self.open_place()
        report_lifecycle(self, "exited", reason=reason)
        self.runtime.registry.announce(self.cell, reason)
        if is_away:
            self._tell_supervisor()  # which may wait for that, and has nothing to decide
            return
        supervisor = self.runtime.supervisors.get(self.supervisor_id)
        if supervisor is not None and supervisor.child_exited(self):
            return
        # The supervisor has gone on without this one, which was stuck; with its end the name is free.
        if self.is_current:
            self.settle_stopped("not running")
            self.runtime.drop(self)
        self._tell_supervisor()

    def report_stuck(self) -> None:
        """It is past every limit and has not ended: name it, with the place where it hangs, until it does."""
        if self.incarnation is not None and self.id not in self.runtime.stuck:
            where = self.incarnation.where()
            self.runtime.stuck[self.id] = Stuck(self.id, where)
            report_lifecycle(self, "stuck", stack=where)

    def _tell_end(self, incarnation: Incarnation, reason: Reason) -> bool:
        """Let everybody know that it ends, and why. True: it is to be started again."""
        self.told = reason
        again = self.fate == "again" or (self.fate == "own" and self._restarts_after(reason))
        if self.is_guests_own_end:
            self._enter(Phase.DECLARED)
        else:
            self._enter(Phase.RESTARTING if again else Phase.STOPPING)
        if not is_clean(reason) and not self._is_expected(reason, again):
            report_crash(self, incarnation, reason, will_restart=again)
        return again

    def _enter(self, phase: Phase) -> None:
        if isinstance(self.spec, SupervisorSpec) or not self.is_current:
            return
        self.cell.phase = phase
        self.cell.fail_calls()

    def _is_expected(self, reason: Reason, again: bool) -> bool:
        """Whether an end that is not clean needs no crash report."""
        if isinstance(reason, Killed):
            return self.fate != "own"
        if isinstance(reason, StartFailed) and not again:
            # A refused boot is told to the user in one line; a supervisor's failed boot was its child's.
            return isinstance(reason.error, BootRefused) or isinstance(self.spec, SupervisorSpec)
        return False

    def _restarts_after(self, reason: Reason) -> bool:
        if self.place is not None:
            return False  # it may join again, and nobody here sees to that
        if not self.started:
            return self.retried
        return needs_restart(self.spec, reason)

    def _tell_supervisor(self) -> None:
        supervisor = self.runtime.supervisors.get(self.supervisor_id)
        if supervisor is not None:
            supervisor.wake()


def needs_restart(spec: ChildSpec | SupervisorSpec, reason: Reason) -> bool:
    """OTP's table of restart type and exit reason (``supervisor:do_restart/3``)."""
    return spec.restart == "permanent" or (spec.restart == "transient" and not is_clean(reason))
