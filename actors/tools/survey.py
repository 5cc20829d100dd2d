"""What the tokenizer makes of a file: how many rows and tokens, which lines are cut, which are refused."""

from __future__ import annotations

import time
from array import array
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from actors.inbox.rows import BadRow, Row
from actors.inbox.validation import Unfit, open_regular, read_rows
from actors.tools.opening import Refused
from actors.trainer.engine import Encoded
from actors.trainer.masks import Encoder
from protocol.config import Config
from protocol.messages.common import BadLine

KEPT = 1000
"""Lines that are named; the rest are counted."""
UNCUT = 1 << 40


@dataclass(slots=True)
class Survey:
    """One reading of a file."""

    rows: int = 0
    """Rows that can be trained on."""
    tokens: int = 0
    """Of those rows, cut to ``max_length``, prompts included."""
    trained_tokens: int = 0
    """Tokens that bear loss."""
    truncated: int = 0
    truncated_lines: list[int] = field(default_factory=list)
    refused: int = 0
    refused_lines: list[BadLine] = field(default_factory=list)
    lengths: array[int] = field(default_factory=lambda: array("L"))
    """Tokens per row, uncut."""
    share: float = 1.0
    """How much of the file was read, by bytes: less than 1 where ``seconds`` ran out."""

    def scaled(self, count: int) -> int:
        """Return a count over the whole file, estimated from the part that was read."""
        return round(count / self.share) if self.share else 0


@dataclass(frozen=True, slots=True)
class Sample:
    """A row, its line number, and its tokens."""

    line: int
    row: Row
    encoded: Encoded
    cut: int
    """Tokens that ``max_length`` cut off."""


class Reader:
    """Reads rows as the trainer does: same tokenizer, same template, same length limit."""

    def __init__(self, config: Config, tokenizer: Any) -> None:
        self._config = config
        self._cut = Encoder(tokenizer, config.training.max_length)
        self._uncut = Encoder(tokenizer, UNCUT)

    def read(self, path: Path, samples: int, seconds: float | None = None) -> tuple[Survey, list[Sample]]:
        """Read a file to its end, or for ``seconds``; return the survey and the first ``samples`` rows.

        Raises:
            Refused: it cannot be read.
        """
        survey = Survey()
        kept: list[Sample] = []
        until = None if seconds is None else time.monotonic() + seconds
        try:
            with open_regular(path) as stream:
                for line, row in read_rows(stream, self._config.inbox.max_line):
                    sample = self._take(survey, line, row)
                    if sample is not None and len(kept) < samples:
                        kept.append(sample)
                    if until is not None and time.monotonic() > until:
                        survey.share = min(1.0, stream.tell() / max(1, path.stat().st_size))
                        break
        except (Unfit, OSError) as error:
            raise Refused(f"{path}: {error.strerror if isinstance(error, OSError) else error}") from error
        return survey, kept

    def _take(self, survey: Survey, line: int, row: Row | BadLine) -> Sample | None:
        if not isinstance(row, BadLine):
            try:
                whole = self._uncut.encode(row)
                length = len(whole.ids)
                encoded = whole if length <= self._config.training.max_length else self._cut.encode(row)
            except BadRow as error:
                row = BadLine(line, str(error))
        if isinstance(row, BadLine):
            survey.refused += 1
            if survey.refused <= KEPT:
                survey.refused_lines.append(row)
            return None
        survey.rows += 1
        survey.tokens += len(encoded.ids)
        survey.trained_tokens += encoded.targets
        survey.lengths.append(length)
        cut = length - len(encoded.ids)
        if cut:
            survey.truncated += 1
            if survey.truncated <= KEPT:
                survey.truncated_lines.append(line)
        return Sample(line, row, encoded, cut)
