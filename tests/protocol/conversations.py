"""Random conversations with a :class:`tests.protocol.desk.Desk`, and what must come back, foretold without a server."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from hypothesis import strategies as st

from protocol.framing import HEADER, Encoding, encode
from tests.protocol.desk import TOPIC

IN_FLIGHT = 4
SUBSCRIPTIONS = 2
MAX_FRAME = 4096

Told = tuple[Any, ...]
"""What of an answer is foretold: a reply's id and body, an error's id and the codes that it may have."""

ids = st.sampled_from(["a", "b", "c"])
names = st.sampled_from(["h", "i"])
bodies = st.one_of(
    st.builds(lambda text: {"type": "echo", "text": text}, st.sampled_from(["", "x", "火" * 30])),
    st.builds(lambda name: {"type": "hold", "name": name}, names),
    st.sampled_from(
        [
            {"type": "refuse"},
            {"type": "echo"},
            {"type": "note", "text": "x"},
            {"type": "refuse", "more": 1},
            None,
            [],
            7,
        ]
    ),
)
casts = st.one_of(
    st.builds(lambda name: {"type": "release", "name": name}, names),
    st.builds(lambda number: {"type": "publish", "number": number}, st.integers(0, 99)),
    st.sampled_from([{"type": "note", "text": "x"}, {"type": "note"}, {"type": "refuse"}, "x"]),
)
addressees = st.sampled_from(["Desk", "Desk", "Desk", "Nobody"])
junk = st.sampled_from(
    [
        ({"type": "reply", "id": "z", "body": None}, "z"),
        ({"type": "request", "id": "z", "to": "Desk"}, "z"),
        ({"type": "request", "id": "z", "to": "Desk", "body": None, "timeout": 0}, "z"),
        ({"type": "request", "id": "", "to": "Desk", "body": None}, None),
        ({"type": "hello", "min": 1, "max": 1, "client": "again"}, None),
        ({"type": "cast", "to": "Desk", "body": None, "id": 7}, None),
        ([1, 2], None),
        (None, None),
    ]
)
steps = st.one_of(
    st.tuples(st.just("request"), ids, addressees, bodies),
    st.tuples(st.just("cast"), addressees, casts),
    st.tuples(st.just("subscribe"), ids, st.sampled_from([TOPIC, TOPIC, "nothing"])),
    st.tuples(st.just("junk"), junk),
    st.tuples(st.just("join"), ids),
)
ends = st.sampled_from(["all said", "all said", "cut short", "fault", "gone"])
cuts = st.lists(st.integers(0, 10_000), max_size=6)


@dataclass
class Open:
    """A request under way: how often it was asked."""

    name: str
    count: int = 1


@dataclass
class Foretold:
    """One greeted connection, as the desk and the server must see it."""

    prefix: str
    """Of all ids, so that no other conversation knows them."""
    encoding: Encoding
    told: list[Told] = field(default_factory=list)
    events: list[tuple[str, int]] = field(default_factory=list)
    known: dict[str, Open | Told] = field(default_factory=dict)
    subscriptions: list[str] = field(default_factory=list)

    def hear(self, step: Any) -> dict[str, Any] | Any:
        """Foretell what a step leads to, and return what is said for it."""
        kind, *what = step
        return getattr(self, f"_{kind}")(*what)

    @property
    def open(self) -> list[tuple[str, Open]]:
        return [(id, each) for id, each in self.known.items() if isinstance(each, Open)]

    def _request(self, id: str, to: str, body: Any) -> Any:
        id = self.prefix + id
        key = f"{id} {to} {body}"
        known = self.known.get(key)
        kind = body.get("type") if isinstance(body, dict) else None
        if sum(each.count for _, each in self.open) >= IN_FLIGHT:
            self.told.append(("error", id, {"busy"}))
        elif isinstance(known, Open):
            known.count += 1
        elif known is not None:
            self.told.append(known)
        elif to != "Desk":
            self.told.append(("error", id, {"unknown_actor"}))
        elif kind == "hold":
            self.known[key] = Open(body["name"])
        elif kind == "echo" and "text" in body:
            self._remember(key, ("reply", id, body["text"]))
        elif body == {"type": "refuse"}:
            self._remember(key, ("error", id, {"not_now"}))
        else:
            self.told.append(("error", id, {"bad_message"}))
        if kind == "hold":  # names are shared by all who speak to the desk
            body = {**body, "name": self.prefix + body["name"]}
        return {"type": "request", "id": id, "to": to, "body": body}

    def _remember(self, key: str, answer: Told) -> None:
        self.known[key] = answer
        self.told.append(answer)

    def _cast(self, to: str, body: Any) -> Any:
        kind = body.get("type") if isinstance(body, dict) else None
        if to != "Desk":
            self.told.append(("error", None, {"unknown_actor"}))
        elif kind == "release":
            self._release(body["name"])
        elif kind == "publish":
            self.events += [(id, body["number"]) for id in self.subscriptions]
        elif kind != "note" or "text" not in body:
            self.told.append(("error", None, {"bad_message"}))
        if kind == "release":
            body = {**body, "name": self.prefix + body["name"]}
        return {"type": "cast", "to": to, "body": body}

    def _release(self, name: str) -> None:
        for key, each in self.open:
            if each.name == name:
                answer: Told = ("reply", key.split()[0], self.prefix + name)
                self.known[key] = answer
                self.told += [answer] * each.count

    def _subscribe(self, id: str, topic: str) -> Any:
        id = self.prefix + id
        if len(self.subscriptions) >= SUBSCRIPTIONS:
            self.told.append(("error", id, {"busy"}))
        elif topic != TOPIC:
            self.told.append(("error", id, {"unknown_topic"}))
        else:
            self.told.append(("reply", id, None))
            self.subscriptions.append(id)
        return {"type": "subscribe", "id": id, "topics": [topic]}

    def _junk(self, what: tuple[Any, str | None]) -> Any:
        said, id = what
        self.told.append(("error", id, {"bad_message"}))
        return said

    def _join(self, id: str) -> Any:
        id = self.prefix + id
        codes = {"bad_message"} if self.encoding == "json" else {"busy", "not_joinable"}
        self.told.append(("error", id, codes))
        return {"type": "join", "id": id, "name": "Desk"}

    def last(self, end: str) -> bytes:
        """Foretell the end of the conversation, and return what is said for it."""
        said = b""
        if end != "fault":
            for name in ("h", "i"):
                said += encode(self._cast("Desk", {"type": "release", "name": name}), self.encoding)
            said += encode(self._request("end", "Desk", {"type": "echo", "text": "end"}), self.encoding)
        if end == "cut short":
            said += encode({"type": "request"}, self.encoding)[:-1]
        if end == "fault":
            said += encode(self._request("last", "Desk", {"type": "echo", "text": "x"}), self.encoding)
            # The fault is the last word, for everything that has not been answered yet.
            said += HEADER.pack(MAX_FRAME + 1) if self.encoding == "msgpack" else b"{" * (MAX_FRAME + 1)
            self.told.append(("error", None, {"bad_frame"}))
        return said
