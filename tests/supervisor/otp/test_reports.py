"""OTP's cases of reports: what they say, and that no report is longer than a report may be."""

from __future__ import annotations

import logging

import pytest

from supervisor import SupervisorSpec, open_tree
from supervisor.testing import EventLog, settle
from tests.supervisor.helpers import Fail
from tests.supervisor.otp.kit import child, end

pytestmark = pytest.mark.anyio


async def test_format_log_1() -> None:
    """A report of an end, a restart or a start says which child, of which supervisor, and why, on one line."""
    async with open_tree(SupervisorSpec("root", [SupervisorSpec("my_supervisor", [child("any_id")])])) as tree:
        log = EventLog(tree.stream)
        await end(tree, "any_id")
        told = [(entry["event"], entry["reason"]) for entry in log.read(actor="any_id", supervisor="my_supervisor")]
        why = "crash: ValueError: asked to"
        assert told == [("exited", why), ("restarting", why), ("started", None)]
        (crash,) = log.topic("crashes")
        assert (crash["actor"], crash["reason"], crash["last_message"], crash["will_restart"]) == (
            "any_id",
            why,
            "Fail",
            True,
        )


async def test_format_log_2(caplog: pytest.LogCaptureFixture) -> None:
    """A reason of any length and of many lines is cut to one line of at most 1,000 characters, also in the log."""
    endless = "\n".join(f"line {number}" for number in range(10_000))
    async with open_tree(SupervisorSpec("root", [child("any_id")])) as tree:
        log = EventLog(tree.stream)
        with caplog.at_level(logging.ERROR, logger="supervisor"):
            tree.ref("any_id").cast(Fail(endless))
            await settle()
        (crash,) = log.topic("crashes")
        (exited,) = log.read(event="exited")
        for text in (crash["reason"], exited["reason"]):
            assert text.startswith("crash: ValueError: line 0 line 1 ")
            assert text.endswith(" line 9999")
            assert len(text) <= 1_000
            assert "\n" not in text
        (record,) = caplog.records
        assert len(record.getMessage()) <= 1_000 + 20_000 + 100


async def test_external_start_no_progress_log(caplog: pytest.LogCaptureFixture) -> None:
    """A normal end and the start that follows it are events of the tree, and nothing to write to the log."""
    with caplog.at_level(logging.DEBUG, logger="supervisor"):
        async with open_tree(SupervisorSpec("root")) as tree:
            log = EventLog(tree.stream)
            await tree.supervisor("root").start_child(child("child1"))
            await end(tree, "child1", "normal")
            told = [entry["event"] for entry in log.read(actor="child1")]
            assert told == ["started", "exited", "restarting", "started"]
    assert caplog.records == []
