"""Files as a whole: what is opened, how lines are counted, what is refused."""

from __future__ import annotations

import hashlib
import os
import socket
import tempfile
import tracemalloc
from pathlib import Path

import pytest

from actors.inbox.validation import KEPT, Changed, Checked, Stamp, Unfit, check_file, why_refused

GOOD = b'{"text": "one"}\n'
LIMIT = 1 << 20


def check(path: Path, max_line: int = LIMIT, max_file: int = 1 << 30) -> Checked:
    return check_file(path, max_line=max_line, max_file=max_file)


def made(folder: Path, content: bytes) -> Path:
    path = folder / "a.jsonl"
    path.write_bytes(content)
    return path


def test_rows_are_counted_and_the_file_is_hashed(tmp_path: Path) -> None:
    content = GOOD + b'{"prompt": "a", "completion": "b"}\n' + GOOD
    checked = check(made(tmp_path, content))
    assert (checked.rows, checked.bad, checked.bad_lines) == (3, 0, ())
    assert checked.sha256 == hashlib.sha256(content).hexdigest()
    assert checked.bytes == len(content)
    assert why_refused(checked, "refuse") is None


@pytest.mark.parametrize(
    "content",
    [
        GOOD.rstrip(b"\n"),
        GOOD.replace(b"\n", b"\r\n"),
        b"\xef\xbb\xbf" + GOOD,
        b"\n\r\n  \t\n" + GOOD + b"\n\n",
        b"\xef\xbb\xbf\n" + GOOD,
    ],
    ids=["no last line break", "CRLF", "BOM", "blank lines", "BOM on a blank line"],
)
def test_one_good_row_however_it_is_wrapped(tmp_path: Path, content: bytes) -> None:
    checked = check(made(tmp_path, content))
    assert (checked.rows, checked.bad) == (1, 0)
    assert checked.sha256 == hashlib.sha256(content).hexdigest()


def test_a_bom_that_is_not_at_the_beginning_is_a_bad_line(tmp_path: Path) -> None:
    checked = check(made(tmp_path, GOOD + b"\xef\xbb\xbf" + GOOD))
    assert [bad.line for bad in checked.bad_lines] == [2]


def test_bad_lines_are_named_by_their_number_in_the_file(tmp_path: Path) -> None:
    checked = check(made(tmp_path, GOOD + b"\n" + b"{oops\n" + GOOD + b'{"text": "\xff"}\n'))
    assert [(bad.line, bad.reason.partition(":")[0]) for bad in checked.bad_lines] == [
        (3, "not valid JSON"),
        (5, "not UTF-8"),
    ]
    assert why_refused(checked, "refuse") == "2 of 4 rows cannot be trained on"
    assert why_refused(checked, "skip") is None


def test_utf_16_is_refused(tmp_path: Path) -> None:
    checked = check(made(tmp_path, GOOD.decode().encode("utf-16")))
    assert checked.rows == 0
    assert why_refused(checked, "skip") == "no row to train on"
    assert checked.bad_lines[0].reason == "not UTF-8: byte 0xff in column 1"


def test_only_the_first_bad_lines_are_kept_and_all_are_counted(tmp_path: Path) -> None:
    checked = check(made(tmp_path, b"{\n" * (KEPT + 5) + GOOD))
    assert len(checked.bad_lines) == KEPT
    assert checked.bad == KEPT + 5
    assert checked.bad_lines[-1].line == KEPT


@pytest.mark.parametrize("content", [b"", b"\n\n", b"{\n"], ids=["empty", "blank", "all bad"])
def test_without_a_good_row_a_file_is_refused_even_with_skip(tmp_path: Path, content: bytes) -> None:
    assert (why_refused(check(made(tmp_path, content)), "skip") or "").startswith("no row to train on")


@pytest.mark.parametrize("ending", [b"\n", b"\r\n", b""], ids=["LF", "CRLF", "none"])
def test_a_line_may_be_as_long_as_the_limit_and_no_longer(tmp_path: Path, ending: bytes) -> None:
    fits = b'{"text": "' + b"a" * 88 + b'"}'
    assert len(fits) == 100
    path = made(tmp_path, GOOD + fits + ending)
    assert check(path, max_line=100).rows == 2
    checked = check(path, max_line=99)
    assert checked.rows == 1
    assert [(bad.line, bad.reason) for bad in checked.bad_lines] == [(2, "longer than 99 bytes (inbox.max_line)")]


def test_a_line_after_one_that_is_too_long_keeps_its_number(tmp_path: Path) -> None:
    content = b"x" * 300_000 + b"\n" + b"{\n" + GOOD
    checked = check(made(tmp_path, content), max_line=1024)
    assert [bad.line for bad in checked.bad_lines] == [1, 2]
    assert checked.rows == 1
    assert checked.sha256 == hashlib.sha256(content).hexdigest()


def test_memory_stays_small_whatever_the_length_of_a_line(tmp_path: Path) -> None:
    path = made(tmp_path, b"x" * (64 << 20))
    tracemalloc.start()
    try:
        check(path, max_line=1 << 20)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 8 << 20


def test_a_file_over_the_limit_is_refused_unread(tmp_path: Path) -> None:
    path = made(tmp_path, GOOD)
    with pytest.raises(Unfit, match=r"16 bytes, more than 15 \(inbox.max_file\)"):
        check(path, max_file=15)


def test_a_symbolic_link_is_not_followed(tmp_path: Path) -> None:
    target = made(tmp_path, GOOD)
    link = tmp_path / "link.jsonl"
    link.symlink_to(target)
    with pytest.raises(Unfit, match="a symbolic link"):
        check(link)


def test_a_pipe_does_not_block_and_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "pipe.jsonl"
    os.mkfifo(path)
    with pytest.raises(Unfit, match="a named pipe"):
        check(path)


def test_a_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Unfit, match="a folder"):
        check(tmp_path)


def test_a_socket_is_refused() -> None:
    with tempfile.TemporaryDirectory() as folder, socket.socket(socket.AF_UNIX) as listener:
        path = Path(folder) / "s.jsonl"
        listener.bind(str(path))
        with pytest.raises(Unfit, match="a socket"):
            check(path)


def test_a_device_is_refused() -> None:
    with pytest.raises(Unfit, match="a device"):
        check(Path("/dev/null"))


def test_a_file_that_is_gone_is_no_refusal(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        check(tmp_path / "gone.jsonl")


def test_a_file_that_grows_while_it_is_read_is_not_judged(tmp_path: Path) -> None:
    path = made(tmp_path, GOOD * 3)

    def grow() -> None:
        with path.open("ab") as stream:
            stream.write(GOOD)

    with pytest.raises(Changed):
        check_file(path, max_line=LIMIT, max_file=LIMIT, go_on=grow)


def test_a_file_that_is_rewritten_while_it_is_read_is_not_judged(tmp_path: Path) -> None:
    path = made(tmp_path, GOOD * 3)

    def rewrite() -> None:
        with path.open("r+b") as stream:
            stream.write(GOOD)
        os.utime(path, ns=(0, 0))

    with pytest.raises(Changed):
        check_file(path, max_line=LIMIT, max_file=LIMIT, go_on=rewrite)


def test_a_file_that_is_not_the_one_seen_is_not_judged(tmp_path: Path) -> None:
    path = made(tmp_path, GOOD)
    seen = Stamp.of(path.stat())
    other = tmp_path / "other"
    other.write_bytes(GOOD)
    other.replace(path)
    with pytest.raises(Changed):
        check_file(path, max_line=LIMIT, max_file=LIMIT, expect=seen)


def test_reading_can_be_ended_from_within(tmp_path: Path) -> None:
    class Enough(Exception):
        pass

    def stop() -> None:
        raise Enough

    with pytest.raises(Enough):
        check_file(made(tmp_path, GOOD * 9), max_line=LIMIT, max_file=LIMIT, go_on=stop)


def test_a_name_that_is_not_utf8_is_no_hindrance(tmp_path: Path) -> None:
    path = tmp_path / os.fsdecode(b"caf\xe9.jsonl")
    path.write_bytes(GOOD)
    assert check(path).rows == 1


def test_the_reading_of_one_endless_line_can_be_ended_too(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    with path.open("wb") as file:
        file.write(b'{"text": "')
        file.truncate(8 << 30)
    asked = 0

    def stop() -> None:
        nonlocal asked
        asked += 1
        if asked == 10:
            raise TimeoutError

    with pytest.raises(TimeoutError):
        check_file(path, max_line=LIMIT, max_file=1 << 40, go_on=stop)
