"""The rows of one payload: found once, in an order that needs no memory.

An index is held (offset, token count and checksum per row, some 30 bytes), and the tokens of the first rows, up to a
limit; the others are read again by line when their turn comes. So a file may be far larger than memory.
"""

from __future__ import annotations

import hashlib
import zlib
from array import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

import numpy

from actors.inbox.rows import BadRow, parse_row
from actors.inbox.validation import BOM, REASON
from actors.trainer.engine import Encoded, RowEncoder
from protocol.messages.common import BadLine

KEPT_LINES = 100
"""Bad lines that are told one by one; the rest are counted."""
PIECE = 1 << 16
"""Bytes that are read at a time of a line that is left out."""
KEPT_TOKENS = 16 << 20
"""Tokens kept from the reading that counts them: 80 MiB. Chat templates are slow, and each epoch asks again."""


class PayloadChanged(Exception):
    """The file in ``queue/processing/`` is not the one that was accepted, or not read as when it began."""


@dataclass(slots=True)
class Index:
    """Where the training rows of a payload lie, and what became of its other lines."""

    offsets: array[int] = field(default_factory=lambda: array("Q"))
    lines: array[int] = field(default_factory=lambda: array("Q"))
    lengths: array[int] = field(default_factory=lambda: array("L"))
    """Tokens per row, prompt included."""
    checksums: array[int] = field(default_factory=lambda: array("L"))
    held_out: int = 0
    refused: int = 0
    bad: list[BadLine] = field(default_factory=list)
    """The first lines that the tokenizer refused, beside those that validation refused already."""

    def __len__(self) -> int:
        return len(self.offsets)


class _Kept:
    """The tokens of the first rows, packed: five bytes a token."""

    def __init__(self) -> None:
        self._ids = array("I")
        self._trained = bytearray()
        self._ends = array("Q", [0])
        self._full = False

    def add(self, row: Encoded) -> None:
        """Keep the next row, unless one was left out before it or there is no room."""
        self._full = self._full or len(self._ids) + len(row.ids) > KEPT_TOKENS
        if not self._full:
            self._ids.extend(row.ids)
            self._trained.extend(row.trained)
            self._ends.append(len(self._ids))

    def get(self, row: int) -> Encoded | None:
        if row + 1 >= len(self._ends):
            return None
        begin, end = self._ends[row], self._ends[row + 1]
        return Encoded(self._ids[begin:end].tolist(), [bool(one) for one in self._trained[begin:end]])


class Payload:
    """One JSONL file, open for as long as its job runs: a rename beneath it does no harm."""

    def __init__(self, path: Path, encoder: RowEncoder) -> None:
        """Raises: PayloadChanged: it is gone."""
        try:
            self._file: BinaryIO = path.open("rb")
        except (FileNotFoundError, IsADirectoryError, NotADirectoryError) as error:
            raise PayloadChanged(f"{path.name} is gone from queue/processing/") from error
        self._path = path
        self._encoder = encoder
        self.index = Index()
        self._kept = _Kept()

    def __enter__(self) -> Payload:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def scan(self, sha256: str, skip: Sequence[int], held_out: float, go_on: Callable[[], bool]) -> bool:
        """Read the file once: hash it, encode each row, fill the index. Return False if ``go_on`` ended it.

        Args:
            sha256: of the file as it was accepted.
            skip: line numbers, from 1, that validation refused.
            held_out: share of rows kept back, chosen by a hash of the line so that it never changes sides.
            go_on: asked before each line, and often within one that is left out; cheap.

        Raises:
            PayloadChanged: the contents have another sha256.
        """
        digest, left_out, offset = hashlib.sha256(), frozenset(skip), 0
        index = self.index = Index(refused=len(left_out))
        self._kept = _Kept()
        self._file.seek(0)
        number, begins = 0, True
        while go_on():
            number += begins
            # A line that is left out may be longer than memory: for its length, perhaps, it was refused.
            passed_over = number in left_out
            line = self._file.readline(PIECE if passed_over else -1)
            if not line:
                break
            digest.update(line)
            body = line.removeprefix(BOM) if number == 1 else line
            if not passed_over and body.strip():
                self._take(index, number, offset, line, body, held_out)
            offset += len(line)
            begins = line.endswith(b"\n")
        else:
            return False
        if digest.hexdigest() != sha256:
            raise PayloadChanged(f"{self._path.name} was changed after it was accepted")
        return True

    def read(self, row: int) -> Encoded:
        """Return one row of the index.

        Raises:
            PayloadChanged: its line is another one by now.
        """
        if (kept := self._kept.get(row)) is not None:
            return kept
        self._file.seek(self.index.offsets[row])
        line = self._file.readline()
        if zlib.crc32(line) != self.index.checksums[row]:
            raise PayloadChanged(f"line {self.index.lines[row]} of {self._path.name} was changed while it was trained")
        return self._encoder.encode(parse_row(line.removeprefix(BOM) if self.index.lines[row] == 1 else line))

    def _take(self, index: Index, number: int, offset: int, line: bytes, body: bytes, held_out: float) -> None:
        try:
            encoded = self._encoder.encode(parse_row(body))
        except BadRow as error:
            index.refused += 1
            if len(index.bad) < KEPT_LINES:
                index.bad.append(BadLine(number, str(error)[:REASON]))
            return
        if is_held_out(body, held_out):
            index.held_out += 1
            return
        index.offsets.append(offset)
        index.lines.append(number)
        index.lengths.append(len(encoded.ids))
        index.checksums.append(zlib.crc32(line))
        self._kept.add(encoded)


def is_held_out(line: bytes, share: float) -> bool:
    """Whether a line is kept back from training: by its content alone, so always and everywhere the same."""
    return int.from_bytes(hashlib.sha256(line.strip()).digest()[:8]) < share * 2**64


def row_order(rows: int, seed: int, epoch: int, sha256: str, shuffle: bool) -> Sequence[int]:
    """Return the order in which an epoch takes its rows: a pure function of the arguments, so a cursor is one number.

    The generator is numpy's ``RandomState``, whose stream is frozen (NEP 19).
    """
    if not shuffle:
        return range(rows)
    digest = hashlib.sha256(f"{seed}:{epoch}:{rows}:{sha256}".encode()).digest()
    order = numpy.random.RandomState(numpy.frombuffer(digest, dtype=numpy.uint32)).permutation(rows)
    return order.data  # eight bytes a row; as a list of Python's numbers it would be forty


def take_step(order: Sequence[int], position: int, lengths: Sequence[int], batch_tokens: int) -> list[int]:
    """Return the rows of the optimizer step that begins at ``position``: as many as fit, and at least one.

    It looks forward only, so any position that once began a step begins the same step after a restart.
    """
    rows: list[int] = []
    tokens = 0
    for place in range(position, len(order)):
        tokens += lengths[order[place]]
        if rows and tokens > batch_tokens:
            break
        rows.append(order[place])
    return rows


def count_steps(order: Sequence[int], position: int, lengths: Sequence[int], batch_tokens: int) -> int:
    """Return how many optimizer steps the rest of the epoch takes."""
    steps = tokens = 0
    for place in range(position, len(order)):
        length = lengths[order[place]]
        if not tokens or tokens + length > batch_tokens:
            steps, tokens = steps + 1, 0
        tokens += length
    return steps


def micro_batches(rows: Sequence[Encoded], budget: int) -> list[list[Encoded]]:
    """Split a step's rows so that no forward pass has more than ``budget`` tokens, padding included, if rows allow it.

    Rows of like length go together, longest first: memory runs out in the first pass or never. None is shorter than
    half of the longest of its pass, so that less than half of any pass is padding.
    """
    batches: list[list[Encoded]] = []
    for row in sorted(rows, key=lambda row: -len(row.ids)):  # stable: equal lengths keep the order of the epoch
        longest = len(batches[-1][0].ids) if batches else 0
        if batches and (len(batches[-1]) + 1) * longest <= budget and 2 * len(row.ids) >= longest:
            batches[-1].append(row)
        else:
            batches.append([row])
    return batches
