"""The actor: one class, one mailbox, one message at a time; and the decorators that say what it handles.

Semantics: OTP's ``gen_server``. Handlers are found by their decorator, not by their name, so all may be called ``_``.
A request carries its reply type, and the decorators are typed such that ``mypy --strict`` refuses a handler that
answers with anything else.
"""

from __future__ import annotations

import inspect
from abc import ABCMeta
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal, TypeVar, overload

from protocol.messages.common import Message, Request
from supervisor.mailbox import Mailbox
from supervisor.monitor import Down
from supervisor.reply import Reply

if TYPE_CHECKING:
    from supervisor.context import Context
    from supervisor.reasons import Reason

R = TypeVar("R")
M = TypeVar("M", bound=Message)

Mode = Literal["plain", "deferred", "batch", "down"]


@dataclass(frozen=True, slots=True)
class Handler:
    """What the decorator noted on a function: the message type, how it is answered, and the longest batch."""

    kind: type[Message] | type[Down]
    mode: Mode
    run: Callable[..., Awaitable[Any]]
    limit: int = 1


_MARK = "__handles__"


class _Namespace(dict[str, Any]):
    """A class body that remembers every handler in it, also those whose name is taken again further down."""

    def __init__(self) -> None:
        super().__init__()
        self.handlers: list[Handler] = []

    def __setitem__(self, key: str, value: Any) -> None:
        handler = getattr(value, _MARK, None)
        if isinstance(handler, Handler):
            self.handlers.append(handler)
        super().__setitem__(key, value)


def _check_async(what: str, function: object) -> None:
    """Refuse what could not be awaited. A decorated one counts as that which it wraps."""
    if inspect.isfunction(function) and not inspect.iscoroutinefunction(inspect.unwrap(function)):
        raise TypeError(f"{what} must be `async def`")


class ActorType(ABCMeta):
    """The metaclass of actors: makes the table from message type to handler when the class is made."""

    def __new__(mcls, name: str, bases: tuple[type, ...], namespace: dict[str, Any], **keywords: Any) -> ActorType:
        klass = super().__new__(mcls, name, bases, dict(namespace), **keywords)
        table: dict[type, Handler] = {}
        for base in reversed(klass.__mro__[1:]):
            table.update(getattr(base, "__handlers__", {}))
        for hook in ("on_start", "on_stop"):
            if hook in namespace:
                _check_async(f"{name}.{hook}", namespace[hook])
        own: set[type] = set()
        for handler in getattr(namespace, "handlers", ()):
            if handler.kind in own:
                raise TypeError(f"{name}: {handler.kind.__name__} is handled twice")
            own.add(handler.kind)
            table[handler.kind] = handler
        klass.__handlers__ = table  # type: ignore[attr-defined]  # declared on Actor, which is made by this
        klass.__plain__ = {kind: handler.run for kind, handler in table.items() if handler.mode == "plain"}  # type: ignore[attr-defined]
        return klass

    @classmethod
    def __prepare__(cls, name: str, bases: tuple[type, ...], /, **keywords: Any) -> _Namespace:
        return _Namespace()


class Actor(metaclass=ActorType):
    """Derive from it, decorate handlers, and give a factory of it to a :class:`~supervisor.spec.ChildSpec`."""

    mailbox: ClassVar[Mailbox] = Mailbox()
    context: Context
    """Its place in the tree. Set before ``on_start``."""
    __handlers__: ClassVar[dict[type, Handler]]
    __plain__: ClassVar[dict[type, Callable[..., Awaitable[Any]]]]

    async def on_start(self) -> None:
        """Get ready. Returning is the ack that the supervisor waits for; raising is ``StartFailed``."""

    async def on_stop(self, reason: Reason) -> None:
        """Clean up (``gen_server:terminate/2``): after a stop and after a crash, but not when killed.

        It runs within the shutdown limit. Spawned tasks still run and are cancelled after it returns.
        """

    def summary(self) -> Mapping[str, object]:
        """What introspection shows of this actor: small, plain values."""
        return {}


_Answers = Callable[[Any, Any], Awaitable[R]]
_Takes = Callable[[Any, M], Awaitable[None]]
_Defers = Callable[[Any, Any, Reply[R]], Awaitable[None]]
_Batches = Callable[[Any, Sequence[tuple[Any, Reply[R]]]], Awaitable[None]]
_Mourns = Callable[[Any, Down], Awaitable[None]]
F = TypeVar("F", bound=Callable[..., Awaitable[Any]])


# A request is a message too; the first overload wins for it, which is what is meant.
@overload
def on(kind: type[Request[R]]) -> Callable[[_Answers[R]], _Answers[R]]: ...  # type: ignore[overload-overlap]
@overload
def on(kind: type[M]) -> Callable[[_Takes[M]], _Takes[M]]: ...
def on(kind: type[Message]) -> Callable[[F], F]:
    """Handle messages of this type; what the handler of a :class:`Request` returns is the reply.

    A raised :class:`~supervisor.errors.Refused` answers the caller; any other exception crashes the actor.
    """
    return _marker(kind, "plain")


def on_deferred(kind: type[Request[R]]) -> Callable[[_Defers[R]], _Defers[R]]:
    """Handle requests of this type with a reply token, which may be kept and used after the handler has returned."""
    return _marker(kind, "deferred")


def on_batch(kind: type[Request[R]], limit: int = 100) -> Callable[[_Batches[R]], _Batches[R]]:
    """Handle requests of this type that lie next to each other in the mailbox at once, ``limit`` at most.

    It is for group commit. Replies stay per message; a batch never waits for more to come.
    """
    if limit < 1:
        raise ValueError(f"the limit of a batch must be at least 1, not {limit}")
    return _marker(kind, "batch", limit)


def on_down(handler: _Mourns) -> _Mourns:
    """Handle the :class:`Down` notices that ``context.monitor`` asked for. Without a handler they are dropped."""
    return _marker(Down, "down")(handler)


def _marker(kind: type[Message] | type[Down], mode: Mode, limit: int = 1) -> Callable[[F], F]:
    # `@on` without brackets would take the handler for the kind, and leave a class that handles nothing.
    if not (isinstance(kind, type) and issubclass(kind, Down if mode == "down" else Message)):
        raise TypeError(f"the class of a message is wanted, as in @on(Kind), not {kind!r}")

    def mark(function: F) -> F:
        _check_async(f"the handler of {kind.__name__}, {function.__qualname__},", function)
        _check_annotation(kind, function)
        setattr(function, _MARK, Handler(kind, mode, function, limit))
        return function

    return mark


def _check_annotation(kind: type, function: Callable[..., Any]) -> None:
    """Refuse a handler whose parameter is annotated with another message class: a slip that no type checker sees."""
    for name, annotation in function.__annotations__.items():
        known = function.__globals__.get(annotation) if isinstance(annotation, str) else annotation
        if name != "return" and isinstance(known, type) and issubclass(known, Message) and known is not kind:
            raise TypeError(f"a handler of {kind.__name__} takes a {known.__name__}")
