"""Packed rows do not see each other, so that packing changes no gradient; a model that lets them is found out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import LlamaConfig, LlamaForCausalLM

from actors.trainer.engine import Encoded
from actors.trainer.loss import summed_loss
from actors.trainer.packing import Unpackable, check_isolation, pack_inputs, packs
from tests.actors.trainer.fake_port import settings
from tests.actors.trainer.runs import Killed, again, different, fresh, held, kill_at, run
from tests.actors.trainer.test_loss import gradients, model, ragged

CPU = torch.device("cpu")


@pytest.mark.parametrize(("attention", "close"), [("sdpa", 1e-10), ("eager", 1e-5)])
def test_gradients_are_those_of_padded_rows(attention: str, close: float) -> None:
    """The eager attention of transformers takes its softmax in float32, whatever the rest is in."""
    rows = ragged()
    loss, whole = gradients(rows, [rows])
    net: Any = model()
    net.set_attn_implementation(attention)
    count, packed_loss = sum(row.targets for row in rows), 0.0
    together = packs(rows, 80)
    assert 1 < len(together) < len(rows)
    for pack in together:
        part = summed_loss(net, pack, CPU, packed=True) / count
        part.backward()
        packed_loss += float(part.detach())
    assert packed_loss == pytest.approx(loss, rel=close)
    for one, two in zip(whole, (parameter.grad for parameter in net.parameters()), strict=True):
        torch.testing.assert_close(one, two, rtol=close, atol=close * 1e-3)


def test_what_stands_before_a_row_changes_no_bit_of_it() -> None:
    net = model(torch.float32)
    check_isolation(net, CPU, 64)
    ids = torch.arange(20)[None]
    inputs = pack_inputs(net, [8, 12], CPU)
    with torch.no_grad():
        one = net(input_ids=ids, **inputs).logits[0, 8:]
        ids = ids.clone()
        ids[0, :8] = 63
        two = net(input_ids=ids, **inputs).logits[0, 8:]
        plain = net(input_ids=ids).logits[0, 8:]
    assert torch.equal(one, two)
    assert not torch.allclose(two, plain, atol=1e-5), "without the mask they do see each other"


def test_a_model_that_ignores_the_mask_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    net: Any = model(torch.float32)
    forward = LlamaForCausalLM.forward

    def deaf(self: Any, input_ids: Any, **inputs: Any) -> Any:
        return forward(self, input_ids=input_ids, use_cache=False)

    monkeypatch.setattr(LlamaForCausalLM, "forward", deaf)
    with pytest.raises(Unpackable, match="see each other"):
        check_isolation(net, CPU, 64)


def test_attention_that_takes_no_mask_is_refused() -> None:
    net: Any = model(torch.float32)
    net.config._attn_implementation = "flash_attention_2"
    with pytest.raises(Unpackable, match="flash_attention_2"):
        check_isolation(net, CPU, 64)


@given(lengths=st.lists(st.integers(1, 40), min_size=1, max_size=60), budget=st.integers(1, 100))
def test_packs_hold_each_row_once_within_the_budget(lengths: list[int], budget: int) -> None:
    rows = [Encoded([place] * length, [True] * length) for place, length in enumerate(lengths)]
    found = packs(rows, budget)
    assert sorted(row.ids[0] for pack in found for row in pack) == list(range(len(rows)))
    assert all(len(pack) == 1 or sum(len(row.ids) for row in pack) <= budget for pack in found)


def test_resumed_in_the_middle_it_is_exact(small: str, tmp_path: Path) -> None:
    config = settings(
        small, {"every_steps": 3}, packing=True, micro_batch_tokens=48, batch_tokens=96, method="lora", dropout=0.1
    )
    control, port = fresh(tmp_path / "control", config)
    run(control, port)
    home, port = fresh(tmp_path / "home", config)
    kill_at(port, 5)
    with pytest.raises(Killed):
        run(home, port)
    run(home, again(port))
    assert different(held(home)[2], held(control)[2]) == []
    assert held(home)[:2] == held(control)[:2]


def test_layers_that_look_back_a_limited_way_are_not_packed() -> None:
    net: Any = model(torch.float32)
    net.config.sliding_window = 32
    check_isolation(net, CPU, 32)
    with pytest.raises(Unpackable, match="32 tokens"):
        check_isolation(net, CPU, 33)


def test_a_model_that_cannot_be_packed_is_trained_without_and_the_ledger_says_so(
    small: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home, port = fresh(tmp_path / "control", settings(small))
    run(home, port)
    unpacked = held(home)
    monkeypatch.setattr(LlamaConfig, "sliding_window", 8, raising=False)
    home, port = fresh(tmp_path / "home", settings(small, packing=True))
    run(home, port)
    weights, ledger, _ = held(home)
    assert weights == unpacked[0]
    (note,) = ledger.disturbances
    assert port.of("warned") == [("warned", note)], "once, although two files were trained"
    assert "training.packing is left off: some layers of this model see 8 tokens" in note
