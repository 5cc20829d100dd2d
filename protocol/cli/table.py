"""Aligned tables: a header, rows, columns as wide as their widest cell; numbers to the right."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from protocol.cli.paint import clean, paint

RIGHT = ">"
LEFT = "<"


def print_table(columns: Sequence[tuple[str, str]], rows: Sequence[Sequence[str]], shrink: int | None = None) -> None:
    """Print rows under their column heads.

    Args:
        columns: (head, ``LEFT`` or ``RIGHT``) of each column.
        rows: cells, as text without colours.
        shrink: index of the column that is cut, on a terminal too narrow for all of it.
    """
    heads = [head for head, _ in columns]
    cells = [[clean(cell) for cell in row] for row in rows]
    widths = [max(len(row[i]) for row in [heads, *cells]) for i in range(len(columns))]
    if shrink is not None and sys.stdout.isatty():
        over = sum(widths) + 2 * (len(widths) - 1) - os.get_terminal_size(sys.stdout.fileno()).columns
        widths[shrink] = max(widths[shrink] - max(over, 0), min(widths[shrink], 12))
    print(paint(_line(heads, columns, widths), "bold"))
    for row in cells:
        print(_line(row, columns, widths))


def _line(cells: Sequence[str], columns: Sequence[tuple[str, str]], widths: Sequence[int]) -> str:
    fitted = (
        cell if len(cell) <= width else cell[: width - 1] + "…" for cell, width in zip(cells, widths, strict=True)
    )
    return "  ".join(f"{cell:{side}{w}}" for cell, (_, side), w in zip(fitted, columns, widths, strict=True)).rstrip()
