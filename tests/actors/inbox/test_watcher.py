"""InboxWatcher in a real tree over a real folder. Its partner takes files away as QueueManager does, and notes it."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import anyio
import pytest

from protocol.messages.inbox import QuietScan
from supervisor import Refused
from supervisor.testing import eventually
from tests.actors.inbox.rooms import ID, ROW, room

pytestmark = pytest.mark.anyio


async def test_a_file_renamed_into_place_is_handed_over_without_a_rescan(tmp_path: Path) -> None:
    async with room(tmp_path) as the:
        await the.rescan()
        the.drop("a.jsonl")
        await eventually(lambda: the.ledger.accepted)
        (message,) = the.ledger.accepted
        assert (message.file, message.priority, message.samples, message.bytes) == ("a.jsonl", "normal", 1, len(ROW))
        assert message.path == str(the.home.inbox / "a.jsonl")
        assert message.submit_id is None


async def test_what_stood_there_before_the_start_is_handed_over_oldest_first(tmp_path: Path) -> None:
    inbox = tmp_path / "home" / "inbox"
    inbox.mkdir(parents=True)
    for age, name in enumerate(["c", "a", "b"]):
        path = inbox / f"{name}.jsonl"
        path.write_bytes(ROW)
        os.utime(path, ns=(age, age))
    async with room(tmp_path) as the:
        await eventually(lambda: len(the.ledger.accepted) == 3)
        assert the.ledger.files == ["c.jsonl", "a.jsonl", "b.jsonl"]


async def test_a_growing_file_is_not_touched_until_it_has_settled(tmp_path: Path) -> None:
    async with room(tmp_path, settle=0.4) as the:
        path = the.home.inbox / "a.jsonl"
        with path.open("ab", buffering=0) as stream:
            for _ in range(8):  # a writer whose lines are torn at every look
                stream.write(ROW[:7])
                await the.rescan()
                stream.write(ROW[7:])
                await the.rescan()
        assert the.ledger.asked == 0
        await eventually(lambda: the.ledger.accepted)
        assert the.ledger.accepted[0].samples == 8


async def test_a_half_written_file_that_stands_still_is_refused_with_its_line(tmp_path: Path) -> None:
    async with room(tmp_path, settle=0.05) as the:
        (the.home.inbox / "a.jsonl").write_bytes(ROW + ROW[:5])
        await eventually(lambda: the.ledger.refused)
        assert [bad.line for bad in the.ledger.refused[0].lines] == [2]


async def test_names_of_producers_are_never_touched(tmp_path: Path) -> None:
    async with room(tmp_path) as the:
        for name in (".a.jsonl", "b.jsonl.tmp", "c.part", "d.jsonl~", ".hidden/e.jsonl"):
            path = the.home.inbox / name
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(ROW)
        await the.rescan()
        assert the.ledger.asked == 0
        assert the.board.inbox_files == 0
        (the.home.inbox / "b.jsonl.tmp").rename(the.home.inbox / "b.jsonl")
        await eventually(lambda: the.ledger.files == ["b.jsonl"])


async def test_a_submitted_file_need_not_settle(tmp_path: Path) -> None:
    async with room(tmp_path, settle=3600) as the:
        the.drop(f"@{ID}-high@a.jsonl")
        await eventually(lambda: the.ledger.accepted)
        (message,) = the.ledger.accepted
        assert (message.file, message.priority, message.submit_id) == ("a.jsonl", "high", ID)


async def test_folders_count_and_the_first_one_may_name_the_line(tmp_path: Path) -> None:
    async with room(tmp_path) as the:
        the.drop("low/deep/a.jsonl")
        await eventually(lambda: the.ledger.accepted)
        the.drop("low/deep/b.jsonl")  # in a folder that was made while the watcher ran
        await eventually(lambda: len(the.ledger.accepted) == 2)
        assert [(one.file, one.priority) for one in the.ledger.accepted] == [("a.jsonl", "low"), ("b.jsonl", "low")]


async def test_the_same_name_twice_is_two_files(tmp_path: Path) -> None:
    async with room(tmp_path) as the:
        the.drop("a.jsonl")
        await eventually(lambda: len(the.ledger.accepted) == 1)
        the.drop("a.jsonl", ROW * 2)
        await eventually(lambda: len(the.ledger.accepted) == 2)
        assert [one.samples for one in the.ledger.accepted] == [1, 2]


async def test_a_file_put_back_unchanged_is_taken_again(tmp_path: Path) -> None:
    async with room(tmp_path) as the:
        the.drop("a.jsonl")
        await eventually(lambda: the.ledger.accepted)
        (tmp_path / "shelf" / "0001").rename(the.home.inbox / "a.jsonl")
        await eventually(lambda: len(the.ledger.accepted) == 2)


async def test_bad_lines_are_refused_by_default_and_named(tmp_path: Path) -> None:
    async with room(tmp_path) as the:
        the.drop("a.jsonl", ROW + b"{\n" + ROW + b'{"text": "\xff"}\n')
        await eventually(lambda: the.ledger.refused)
        (message,) = the.ledger.refused
        assert [bad.line for bad in message.lines] == [2, 4]
        assert message.reason == "2 of 4 rows cannot be trained on"
        assert len(message.sha256) == 64


async def test_bad_lines_are_left_out_if_asked(tmp_path: Path) -> None:
    async with room(tmp_path, on_bad_line="skip") as the:
        the.drop("a.jsonl", ROW + b"{\n" + ROW)
        await eventually(lambda: the.ledger.accepted)
        assert the.ledger.accepted[0].samples == 2
        assert [bad.line for bad in the.ledger.accepted[0].refused] == [2]


@pytest.mark.parametrize("content", [b"", b"\n\n", "é".encode("utf-16")], ids=["empty", "blank", "UTF-16"])
async def test_a_file_without_a_row_is_refused(tmp_path: Path, content: bytes) -> None:
    async with room(tmp_path, on_bad_line="skip") as the:
        the.drop("a.jsonl", content)
        await eventually(lambda: the.ledger.refused)
        assert the.ledger.refused[0].reason.startswith("no row to train on")


async def test_bom_and_crlf_are_accepted(tmp_path: Path) -> None:
    async with room(tmp_path) as the:
        the.drop("a.jsonl", b"\xef\xbb\xbf" + ROW.replace(b"\n", b"\r\n") * 2)
        await eventually(lambda: the.ledger.accepted)
        assert the.ledger.accepted[0].samples == 2


async def test_another_kind_of_file_is_refused(tmp_path: Path) -> None:
    async with room(tmp_path) as the:
        the.drop("a.csv", b"text\none\n")
        await eventually(lambda: the.ledger.refused)
        assert "does not end in .jsonl" in the.ledger.refused[0].reason
        await eventually(lambda: not (the.home.inbox / "a.csv").exists())


async def test_a_name_that_is_not_utf8_is_handed_over_and_can_be_shown(tmp_path: Path) -> None:
    async with room(tmp_path) as the:
        the.drop(os.fsdecode(b"caf\xe9.jsonl"))
        await eventually(lambda: the.ledger.accepted)
        (message,) = the.ledger.accepted
        assert message.file.encode() == b"caf\\xe9.jsonl"
        assert os.fsencode(message.path).endswith(b"caf\xe9.jsonl")


@pytest.mark.parametrize("kind", ["link", "pipe"])
async def test_what_is_no_regular_file_is_refused_once_and_blocks_nothing(tmp_path: Path, kind: str) -> None:
    async with room(tmp_path) as the:
        target = tmp_path / "target.jsonl"
        target.write_bytes(ROW)
        path = the.home.inbox / "a.jsonl"
        if kind == "link":
            path.symlink_to(target)
        else:
            os.mkfifo(path)
        await eventually(lambda: the.board.troubles)
        assert "not a regular file" in str(the.board.troubles["InboxWatcher"])
        await the.rescan()
        await the.rescan()
        assert len(the.ledger.refused) == 1
        the.drop("b.jsonl")
        await eventually(lambda: the.ledger.files == ["b.jsonl"])
        assert target.read_bytes() == ROW
        path.unlink()
        await the.rescan()
        await eventually(lambda: not the.board.troubles)


async def test_a_folder_named_like_a_file_is_a_folder(tmp_path: Path) -> None:
    async with room(tmp_path) as the:
        the.drop("a.jsonl/b.jsonl")
        await eventually(lambda: the.ledger.files == ["b.jsonl"])


async def test_the_inbox_may_be_deleted_and_is_made_anew(tmp_path: Path) -> None:
    async with room(tmp_path) as the:
        await the.rescan()
        shutil.rmtree(the.home.inbox)
        await eventually(the.home.inbox.is_dir)
        await the.rescan()
        the.drop("a.jsonl")
        await eventually(lambda: the.ledger.files == ["a.jsonl"])


async def test_an_inbox_that_was_replaced_by_another_folder_is_watched(tmp_path: Path) -> None:
    async with room(tmp_path) as the:
        await the.rescan()
        other = tmp_path / "other"
        other.mkdir()
        the.home.inbox.rename(tmp_path / "aside")
        other.rename(the.home.inbox)  # over the empty one, if that has been made already
        await the.rescan()
        the.drop("a.jsonl")
        await eventually(lambda: the.ledger.files == ["a.jsonl"])


async def test_more_files_than_the_kernel_queues_events_for_are_each_taken_once(tmp_path: Path) -> None:
    limit = int(Path("/proc/sys/fs/inotify/max_queued_events").read_text())
    files = min(limit, 20_000) // 2 + 500  # two events each: some are lost, if the reader sleeps
    async with room(tmp_path) as the:
        await the.rescan()
        for number in range(files):  # without giving the loop a turn
            (the.home.inbox / f"{number}.jsonl").write_bytes(ROW)
        await eventually(lambda: len(the.ledger.accepted) == files, within=60)
        assert len(set(the.ledger.files)) == files


async def test_how_many_files_stand_in_the_inbox_is_on_the_board(tmp_path: Path) -> None:
    async with room(tmp_path, settle=3600) as the:
        path = the.drop("a.jsonl")
        await eventually(lambda: the.board.inbox_files == 1)
        path.unlink()
        await eventually(lambda: the.board.inbox_files == 0)


async def test_the_inbox_is_quiet_when_nothing_waits_in_it(tmp_path: Path) -> None:
    async with room(tmp_path) as the:
        the.tree.ref("InboxWatcher").cast(QuietScan(7))
        await eventually(lambda: the.ledger.quiet == {7: True})


async def test_a_file_that_has_not_settled_is_not_quiet(tmp_path: Path) -> None:
    async with room(tmp_path, settle=3600) as the:
        the.drop("a.jsonl")
        the.tree.ref("InboxWatcher").cast(QuietScan(8))
        await eventually(lambda: the.ledger.quiet == {8: False})


async def test_a_file_that_came_just_before_the_question_is_seen(tmp_path: Path) -> None:
    async with room(tmp_path, settle=3600) as the:
        for request in range(20):
            path = the.drop("a.jsonl")
            the.tree.ref("InboxWatcher").cast(QuietScan(request))
            await eventually(lambda: request in the.ledger.quiet)  # noqa: B023
            path.unlink()
        assert not any(the.ledger.quiet.values())


async def test_a_file_that_could_not_be_handed_over_is_tried_again(tmp_path: Path) -> None:
    async with room(tmp_path) as the:
        the.ledger.answer_with = Refused("the disk is full")
        the.drop("a.jsonl")
        await eventually(lambda: the.board.troubles)
        assert "a.jsonl could not be handed over: the disk is full" in str(the.board.troubles["InboxWatcher"])
        the.ledger.answer_with = None
        await eventually(lambda: the.ledger.files == ["a.jsonl"])
        await eventually(lambda: not the.board.troubles)


async def test_a_partner_that_crashes_loses_no_file(tmp_path: Path) -> None:
    async with room(tmp_path) as the:
        await the.rescan()
        the.tree.inject_fault("QueueManager", RuntimeError("a fault of the test"))
        for number in range(50):
            the.drop(f"{number}.jsonl")
        await eventually(lambda: len(set(the.ledger.files)) == 50)


async def test_a_crash_of_the_watcher_loses_no_file(tmp_path: Path) -> None:
    async with room(tmp_path) as the:
        await the.rescan()
        the.tree.inject_fault("InboxWatcher", RuntimeError("a fault of the test"))
        the.drop("a.jsonl")
        await eventually(lambda: the.ledger.files == ["a.jsonl"])


async def test_it_stops_at_once_in_the_middle_of_a_large_file(tmp_path: Path) -> None:
    async with room(tmp_path) as the:
        the.drop("a.jsonl", ROW * 3_000_000)
        await eventually(lambda: the.board.inbox_files == 1)
        with anyio.fail_after(3):
            the.tree.request_shutdown("the end of the test")
            await the.tree.wait()
    assert (tmp_path / "home" / "inbox" / "a.jsonl").exists()


async def test_the_loop_goes_on_while_a_large_file_is_read(tmp_path: Path) -> None:
    async with room(tmp_path) as the:
        the.drop("a.jsonl", ROW * 200_000)
        longest = 0.0
        while not the.ledger.accepted:
            before = anyio.current_time()
            await anyio.sleep(0)
            longest = max(longest, anyio.current_time() - before)
        assert the.ledger.accepted[0].samples == 200_000
        assert longest < 0.25
