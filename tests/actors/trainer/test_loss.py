"""A token weighs the same in whichever pass it comes, whatever the passes are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from actors.trainer.data import micro_batches
from actors.trainer.engine import Encoded
from actors.trainer.loss import summed_loss
from actors.trainer.model import Source
from actors.trainer.optimizer import learning_rate
from actors.trainer.torch_learner import NotFinite, TorchLearner
from protocol.config import TrainingSection
from tests.actors.trainer.fake_port import settings


def model(dtype: torch.dtype = torch.float64) -> Any:
    torch.manual_seed(0)
    shape = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    return LlamaForCausalLM(LlamaConfig(vocab_size=64, **shape)).to(dtype)


def ragged() -> list[Encoded]:
    """Eight rows of 2 to 60 tokens, with 1 to 50 that bear loss."""
    generator = torch.Generator().manual_seed(1)
    rows = []
    for length, trained in ((2, 1), (60, 50), (17, 3), (17, 16), (9, 1), (33, 32), (5, 4), (40, 1)):
        ids = torch.randint(64, (length,), generator=generator).tolist()
        rows.append(Encoded(ids, [False] * (length - trained) + [True] * trained))
    return rows


def gradients(rows: Sequence[Encoded], batches: Sequence[Sequence[Encoded]]) -> tuple[float, list[torch.Tensor]]:
    net = model()
    count, loss = sum(row.targets for row in rows), 0.0
    for batch in batches:
        part = summed_loss(net, batch, torch.device("cpu")) / count
        part.backward()
        loss += float(part.detach())
    return loss, [one.grad for one in net.parameters()]


def test_gradients_do_not_depend_on_the_passes() -> None:
    rows = ragged()
    loss, whole = gradients(rows, [rows])
    by_length = micro_batches(rows, 64)
    assert len(by_length) > 2
    for batches in ([[row] for row in rows], [rows[:3], rows[3:]], by_length):
        other, parts = gradients(rows, batches)
        assert other == pytest.approx(loss, rel=1e-12)
        for one, two in zip(whole, parts, strict=True):
            torch.testing.assert_close(one, two, rtol=1e-10, atol=1e-14)


def test_of_long_prompts_no_scores_are_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [Encoded(list(range(40)), [False] * 36 + [True] * 4), Encoded(list(range(30)), [False] * 26 + [True] * 4)]
    scored: list[torch.Size] = []
    forward = LlamaForCausalLM.forward

    def watched(self: Any, *inputs: Any, logits_to_keep: Any = 0, **more: Any) -> Any:
        found = forward(self, *inputs, logits_to_keep=logits_to_keep, **more)
        scored.append(found.logits.shape)
        return found

    monkeypatch.setattr(LlamaForCausalLM, "forward", watched)
    loss, sparing = gradients(rows, [rows])
    assert scored == [(2, 8, 64)], "the places where one of the two is trained"

    def unable(self: Any, *inputs: Any, **more: Any) -> Any:
        return watched(self, *inputs, **more)

    monkeypatch.setattr(LlamaForCausalLM, "forward", unable)
    other, whole = gradients(rows, [rows])
    assert scored[1] == (2, 40, 64)
    assert other == pytest.approx(loss, rel=1e-12)
    for one, two in zip(sparing, whole, strict=True):
        torch.testing.assert_close(one, two, rtol=1e-10, atol=1e-14)


def test_the_loss_is_that_of_each_row_alone_without_padding() -> None:
    rows, net = ragged(), model()
    alone = []
    for row in rows:
        logits = net(input_ids=torch.tensor([row.ids])).logits[0, :-1]
        each = torch.nn.functional.cross_entropy(logits, torch.tensor(row.ids[1:]), reduction="none")
        alone += [one for one, on in zip(each.tolist(), row.trained[1:], strict=True) if on]
    assert len(alone) == sum(row.targets for row in rows)
    loss, _ = gradients(rows, [rows])
    assert loss == pytest.approx(sum(alone) / len(alone), rel=1e-10)


def test_the_mean_of_means_would_be_caught() -> None:
    rows = ragged()
    _, right = gradients(rows, [rows])
    net = model()
    for row in rows:
        (summed_loss(net, [row], torch.device("cpu")) / row.targets / len(rows)).backward()
    assert not torch.allclose(right[0], next(net.parameters()).grad, rtol=1e-3)


def learner(**training: Any) -> tuple[TorchLearner, TrainingSection]:
    config = settings(**training)
    torch.use_deterministic_algorithms(True)
    tokenizer = type("Tokenizer", (), {})()
    return TorchLearner(Source(model(torch.float32), tokenizer), config), config.training


def test_a_step_trains_and_reports() -> None:
    student, training = learner(batch_tokens=1000)
    beats: list[int] = []
    results = [student.step(ragged(), step, training, lambda: beats.append(1)) for step in range(5)]
    assert results[-1].loss < results[0].loss
    assert results[0].tokens == sum(row.targets for row in ragged())
    assert results[0].seen == sum(len(row.ids) for row in ragged())
    assert len(beats) == 5 * len(micro_batches(ragged(), training.micro_batch_tokens))
    assert all(parameter.grad is None for parameter in student.parameters.values())


def test_the_gradient_is_clipped() -> None:
    student, training = learner()
    training = msgspec.structs.replace(training, max_grad_norm=1e-12, weight_decay=0.0, warmup_steps=0)
    before = [one.detach().clone() for one in student.parameters.values()]
    student.step(ragged(), 0, training, lambda: None)
    after = [one.detach() for one in student.parameters.values()]
    moved = max(float((one - two).abs().max()) for one, two in zip(before, after, strict=True))
    assert moved < training.learning_rate * 0.01, "Adam would move by the full rate; epsilon tells the clipped gradient"


def test_a_loss_that_is_not_finite_changes_nothing() -> None:
    student, training = learner()
    student.step(ragged(), 0, training, lambda: None)
    parameter = next(iter(student.parameters.values()))
    with torch.no_grad():
        parameter[0, 0] = float("inf")
    before = {name: one.detach().clone() for name, one in student.parameters.items()}
    with pytest.raises(NotFinite, match="optimizer step 1"):
        student.step(ragged(), 1, training, lambda: None)
    assert all(torch.equal(before[name], one) for name, one in student.parameters.items())
    assert all(one.grad is None for one in student.parameters.values())


def test_the_rate_warms_up_and_stays() -> None:
    training = TrainingSection(learning_rate=1.0, warmup_steps=4)
    assert [learning_rate(step, 0, training) for step in range(6)] == [0.25, 0.5, 0.75, 1.0, 1.0, 1.0]
    assert [learning_rate(step, 100, training) for step in (100, 103, 10_000)] == [0.25, 1.0, 1.0]
    assert learning_rate(0, 0, msgspec.structs.replace(training, warmup_steps=0)) == 1.0


def test_masters_are_float32_whatever_is_stored() -> None:
    student = TorchLearner(Source(model(torch.bfloat16), None), settings())
    assert {one.dtype for one in student.parameters.values()} == {torch.float32}
    assert {one.dtype for one in student.published().values()} == {torch.bfloat16}
    lora = TorchLearner(Source(model(torch.bfloat16), None), settings(method="lora"))
    assert {one.dtype for one in lora.parameters.values()} == {torch.float32}
    assert {one.dtype for one in lora.plain.parameters() if not one.requires_grad} == {torch.bfloat16}
