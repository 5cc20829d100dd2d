"""Rows: each found once, in an order that is a pure function, in steps that a cursor can find again."""

from __future__ import annotations

import hashlib
import json
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.inbox.rows import CompletionRow, TextRow
from actors.trainer import data as data_module
from actors.trainer.data import Payload, PayloadChanged, count_steps, is_held_out, micro_batches, row_order, take_step
from actors.trainer.engine import Encoded
from actors.trainer.masks import Encoder
from actors.trainer.tiny import tiny_tokenizer

LENGTHS = st.lists(st.integers(1, 40), min_size=1, max_size=60)


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return tiny_tokenizer(512)


def payload(tmp_path: Path, tokenizer: Any, data: bytes, length: int = 64) -> tuple[Payload, str]:
    path = tmp_path / "x.jsonl"
    path.write_bytes(data)
    return Payload(path, Encoder(tokenizer, length)), hashlib.sha256(data).hexdigest()


def always() -> bool:
    return True


def test_all_three_formats(tmp_path: Path, tokenizer: Any) -> None:
    rows = [
        {"text": "plain"},
        {"prompt": "q", "completion": " a"},
        {"messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "ho"}]},
    ]
    data = (
        b"\xef\xbb\xbf" + "\n\n".join(json.dumps(row) for row in rows).encode()
    )  # BOM, blank lines, no last line break
    found, sha256 = payload(tmp_path, tokenizer, data)
    with found:
        assert found.scan(sha256, (), 0.0, always)
        assert list(found.index.lines) == [1, 3, 5]
        texts = [tokenizer.decode(found.read(row).ids) for row in range(3)]
    assert texts == ["plain<|end|>", "q a<|end|>", "<|begin|><|user|>hi<|end|><|assistant|>ho<|end|>"]
    assert [len(tokenizer(text)["input_ids"]) for text in texts] == list(found.index.lengths)


def test_refused_lines_are_left_out_and_counted(tmp_path: Path, tokenizer: Any) -> None:
    found, sha256 = payload(tmp_path, tokenizer, b'{"text": "a b"}\nnonsense\n{"txt": 1}\n{"text": "c d"}\n')
    with found:
        assert found.scan(sha256, (2,), 0.0, always)
    assert list(found.index.lines) == [1, 4]
    assert found.index.refused == 2
    assert [(bad.line, "no known key" in bad.reason) for bad in found.index.bad] == [(3, True)]


def test_a_line_that_was_refused_for_its_length_is_never_held_in_memory(tmp_path: Path, tokenizer: Any) -> None:
    looks = 0

    def look() -> bool:
        nonlocal looks
        looks += 1
        return True

    size = 32 << 20
    found, sha256 = payload(
        tmp_path, tokenizer, b'{"text": "a b"}\n' + b"x" * size + b'\n{"text": "c d"}\n' + b"y" * size
    )
    with found:
        tracemalloc.start()
        try:
            assert found.scan(sha256, (2, 4), 0.0, look)
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert peak < size / 8
        assert looks > 100, "it can be ended in the midst of such a line"
        assert (list(found.index.lines), found.index.refused, len(found.index)) == ([1, 3], 2, 2)
        assert found.read(1).ids == Encoder(tokenizer, 64).encode(TextRow("c d")).ids


def test_a_reason_that_quotes_its_line_is_cut(tmp_path: Path, tokenizer: Any) -> None:
    key = "k" * 5000
    found, sha256 = payload(tmp_path, tokenizer, f'{{"{key}": 1, "{key}": 2}}\n'.encode())
    with found:
        assert found.scan(sha256, (), 0.0, always)
    assert [len(bad.reason) for bad in found.index.bad] == [300]


def test_a_changed_payload_is_found_out(tmp_path: Path, tokenizer: Any) -> None:
    found, sha256 = payload(tmp_path, tokenizer, b'{"text": "a b"}\n{"text": "c d"}\n')
    with found:
        with pytest.raises(PayloadChanged):
            found.scan("0" * 64, (), 0.0, always)
        assert found.scan(sha256, (), 0.0, always)
        (tmp_path / "x.jsonl").write_bytes(b'{"text": "a b"}\n{"text": "e f"}\n')
    with Payload(tmp_path / "x.jsonl", Encoder(tokenizer, 64)) as later:
        later.index = found.index
        later.read(0)
        with pytest.raises(PayloadChanged, match="line 2"):
            later.read(1)
    for path in (tmp_path / "y.jsonl", tmp_path):
        with pytest.raises(PayloadChanged, match="gone"):
            Payload(path, Encoder(tokenizer, 64))


def test_rows_are_encoded_once_as_far_as_memory_is_given(
    tmp_path: Path, tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(data_module, "KEPT_TOKENS", 20)
    rows = [{"prompt": f"say {n}", "completion": " so " * n} for n in range(1, 9)]
    found, sha256 = payload(tmp_path, tokenizer, "\n".join(map(json.dumps, rows)).encode())
    with found:
        assert found.scan(sha256, (), 0.0, always)
        fresh = Encoder(tokenizer, 64)
        expected = [fresh.encode(CompletionRow(row["prompt"], row["completion"])) for row in rows]
        asked: list[Any] = []
        encode = Encoder.encode
        monkeypatch.setattr(Encoder, "encode", lambda self, row: asked.append(row) or encode(self, row))
        assert [found.read(row) for row in range(8)] == expected
        assert 0 < len(asked) < 8
        assert [row.completion for row in asked] == [row["completion"] for row in rows[-len(asked) :]]


def test_a_scan_can_be_ended(tmp_path: Path, tokenizer: Any) -> None:
    found, sha256 = payload(tmp_path, tokenizer, b'{"text": "a b"}\n' * 10)
    looks = iter([True, True, False])
    with found:
        assert not found.scan(sha256, (), 0.0, lambda: next(looks))


def test_held_out_rows_never_change_sides(tmp_path: Path, tokenizer: Any) -> None:
    lines = [json.dumps({"text": f"row {n}"}).encode() for n in range(400)]
    data = b"\n".join(lines)
    found, sha256 = payload(tmp_path, tokenizer, data)
    with found:
        assert found.scan(sha256, (), 0.1, always)
    assert len(found.index) + found.index.held_out == 400
    assert 20 <= found.index.held_out <= 60
    out = {line for line in lines if is_held_out(line, 0.1)}
    assert out == {line for line in lines if is_held_out(line + b"\r\n", 0.1)}
    assert out <= {line for line in lines if is_held_out(line, 0.2)}, "a greater share only adds"
    assert not any(is_held_out(line, 0.0) for line in lines)


def test_the_order_is_a_pure_function_of_its_arguments() -> None:
    order = row_order(20, 0, 0, "ab", True)
    assert sorted(order) == list(range(20))
    assert order == row_order(20, 0, 0, "ab", True)
    frozen = [0, 19, 9, 11, 7, 13, 15, 16, 8, 4, 5, 18, 2, 3, 14, 17, 10, 6, 1, 12]
    assert list(order) == frozen, "and the same for ever"
    others = [(20, 1, 0, "ab"), (20, 0, 1, "ab"), (20, 0, 0, "cd")]
    assert all(row_order(*one, True) != order for one in others)
    assert list(row_order(20, 0, 0, "ab", False)) == list(range(20))


@given(lengths=LENGTHS, batch=st.integers(1, 100), seed=st.integers(0, 9))
def test_steps_take_each_row_once_and_as_many_as_fit(lengths: list[int], batch: int, seed: int) -> None:
    order = row_order(len(lengths), seed, 0, "ab", True)
    position, steps, taken = 0, 0, []
    while position < len(order):
        assert count_steps(order, position, lengths, batch) == count_steps(order, 0, lengths, batch) - steps
        rows = take_step(order, position, lengths, batch)
        assert len(rows) == 1 or sum(lengths[row] for row in rows) <= batch
        after = position + len(rows)
        if after < len(order):
            assert sum(lengths[row] for row in [*rows, order[after]]) > batch
        taken += rows
        position, steps = after, steps + 1
    assert taken == list(order)
    assert steps == count_steps(order, 0, lengths, batch)


@given(lengths=LENGTHS, budget=st.integers(1, 100))
def test_micro_batches_hold_each_row_once_within_the_budget(lengths: list[int], budget: int) -> None:
    rows = [Encoded([place] * length, [True] * length) for place, length in enumerate(lengths)]
    batches = micro_batches(rows, budget)
    assert sorted(row.ids[0] for batch in batches for row in batch) == list(range(len(rows)))
    for batch in batches:
        assert len(batch) == 1 or len(batch) * max(len(row.ids) for row in batch) <= budget
        assert 2 * min(len(row.ids) for row in batch) >= max(len(row.ids) for row in batch), "mostly padding"
