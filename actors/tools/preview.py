"""``stokehold preview FILE``: a few rows as the model will see them, with the tokens marked that it is trained on.

Run: ``python -P -m actors.tools.preview FILE [--rows N] [--config PATH] [--home DIR] [--json]``. Trained tokens are
green on a terminal and stand between « and » elsewhere. Exits 1 if a line was refused, or none is left.
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from actors.tools.opening import FAILED, add_options, as_trained, open_settings, open_tokenizer, told
from actors.tools.survey import Reader, Sample, Survey
from protocol.cli.paint import clean, colours, count, paint

ROWS = 3
LINES_SHOWN = 20


@dataclass(frozen=True, slots=True)
class Span:
    """Neighbouring tokens that are all trained, or all not."""

    text: str
    trained: bool
    tokens: int


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="stokehold preview", description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("file", type=Path, help="a JSONL file")
    parser.add_argument("--rows", type=int, default=ROWS, help=f"how many rows to print (default {ROWS})")
    add_options(parser)
    options = parser.parse_args(arguments)
    with told():
        opened = as_trained(open_settings(options))
        tokenizer = open_tokenizer(opened)
        survey, samples = Reader(opened.config, tokenizer).read(options.file, options.rows)
        if options.json:
            print(json.dumps(as_json(survey, samples, tokenizer), indent=1))
        else:
            show(survey, samples, tokenizer)
    return FAILED if survey.refused or not survey.rows else 0


def spans(sample: Sample, tokenizer: Any) -> list[Span]:
    """Split a row where training begins and ends. Its first token is predicted from nothing, so it is never trained."""
    encoded = sample.encoded
    marks = [False, *encoded.trained[1:]]
    found = []
    for trained, group in itertools.groupby(zip(marks, encoded.ids, strict=True), key=lambda pair: pair[0]):
        ids = [token for _, token in group]
        found.append(Span(tokenizer.decode(ids, skip_special_tokens=False), trained, len(ids)))
    return found


def as_json(survey: Survey, samples: list[Sample], tokenizer: Any) -> dict[str, Any]:
    """Return everything that is shown, and all named lines."""
    return {
        "rows": survey.rows,
        "tokens": survey.tokens,
        "trained_tokens": survey.trained_tokens,
        "truncated": survey.truncated,
        "truncated_lines": survey.truncated_lines,
        "refused": survey.refused,
        "refused_lines": [{"line": bad.line, "reason": bad.reason} for bad in survey.refused_lines],
        "samples": [
            {
                "line": sample.line,
                "tokens": len(sample.encoded.ids),
                "trained_tokens": sample.encoded.targets,
                "cut": sample.cut,
                "spans": [
                    {"text": span.text, "trained": span.trained, "tokens": span.tokens}
                    for span in spans(sample, tokenizer)
                ],
            }
            for sample in samples
        ],
    }


def show(survey: Survey, samples: list[Sample], tokenizer: Any) -> None:
    """Print the rows and what became of all others, for people."""
    for sample in samples:
        cut = f", {count(sample.cut, 'token')} cut off" if sample.cut else ""
        head = f"line {sample.line}: {count(len(sample.encoded.ids), 'token')}, {sample.encoded.targets:,} trained{cut}"
        print(paint(head, "bold"))
        print("".join(map(_drawn, spans(sample, tokenizer))), end="\n\n")
    print(f"{count(survey.rows, 'row')}, {count(survey.tokens, 'token')}, {survey.trained_tokens:,} of them trained")
    if survey.truncated:
        named = ", ".join(map(str, survey.truncated_lines[:LINES_SHOWN]))
        more = _more(survey.truncated)
        print(paint(f"{count(survey.truncated, 'row')} cut to training.max_length: line {named}{more}", "yellow"))
    if survey.refused:
        print(paint(f"{count(survey.refused, 'row')} refused:", "red", "bold"))
        for bad in survey.refused_lines[:LINES_SHOWN]:
            print(f"  line {bad.line}: {clean(bad.reason)}")
        if more := _more(survey.refused):
            print(f"  {more.strip(' ,')}")


def _drawn(span: Span) -> str:
    text = "\n".join(map(clean, span.text.split("\n")))
    if not span.trained:
        return paint(text, "dim")
    if not colours(sys.stdout):
        return f"«{text}»"
    return "\n".join(paint(line, "green") for line in text.split("\n"))


def _more(total: int) -> str:
    return f", and {total - LINES_SHOWN:,} more" if total > LINES_SHOWN else ""


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
