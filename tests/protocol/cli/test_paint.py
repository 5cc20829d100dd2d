"""How numbers and foreign text are set for people."""

from __future__ import annotations

import pytest

from protocol.cli.paint import bar, clean, count, duration, size


@pytest.mark.parametrize(
    ("bytes", "text"),
    [
        (0, "0 B"), (999, "999 B"), (1000, "1.0 KiB"), (1536, "1.5 KiB"), (100 << 20, "100 MiB"),
        (10 << 30, "10.0 GiB"), (5 << 41, "10.0 TiB"), (1 << 60, "1024.0 PiB"),
    ],
)  # fmt: skip
def test_sizes(bytes: int, text: str) -> None:
    assert size(bytes) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(-1, "0 s"), (0.4, "0 s"), (59.6, "1 m 00 s"), (125, "2 m 05 s"), (11_400, "3 h 10 m"), (532_800, "6 d 4 h")],
)
def test_spans(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_counts() -> None:
    assert (count(1, "file"), count(3000, "file"), count(2, "entry", "entries")) == (
        "1 file",
        "3,000 files",
        "2 entries",
    )


@pytest.mark.parametrize(("share", "text"), [(-1, "····"), (0.5, "██··"), (0.53125, "██▏·"), (2, "████")])
def test_bars(share: float, text: str) -> None:
    assert bar(share, 4) == text


def test_foreign_text_cannot_command_the_terminal() -> None:
    assert clean("plain → ä") == "plain → ä"
    assert clean("a\x1b[2J\n\udcff") == "a\\x1b[2J\\n\\udcff"
