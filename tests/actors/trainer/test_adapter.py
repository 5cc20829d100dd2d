"""LoRA: what may be adapted, and that a merge says what base and adapter say."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from actors.trainer.adapter import UnsuitableTarget, merged_tensors, set_dropout
from actors.trainer.engine import Encoded
from actors.trainer.model import load_folder, settle
from actors.trainer.torch_learner import TorchLearner
from protocol.config import ModelSection
from tests.actors.trainer.fake_port import settings

PROBE = torch.arange(60).reshape(2, 30)


def adapted(folder: str, *, moved: bool = True, dtype: Any = "auto", **training: Any) -> TorchLearner:
    source = load_folder(folder, ModelSection(), dtype)
    torch.manual_seed(3)
    learner = TorchLearner(source, settings(method="lora", lora_rank=4, **training))
    if moved:
        with torch.no_grad():
            for parameter in learner.parameters.values():
                parameter.add_(torch.randn_like(parameter) * 0.1)
    learner.model.eval()
    return learner


def test_every_linear_layer_and_not_the_embeddings(small: str) -> None:
    learner = adapted(small)
    layers = {name.split(".lora_")[0].split("model.model.model.")[-1] for name in learner.parameters}
    parts = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj")
    parts += ("mlp.gate_proj", "mlp.up_proj", "mlp.down_proj")
    assert layers == {f"layers.{number}.{part}" for number in (0, 1) for part in parts}


@pytest.mark.parametrize("target", ["lm_head", "embed_tokens"])
def test_tied_embeddings_are_refused(tied: str, target: str) -> None:
    with pytest.raises(UnsuitableTarget, match="shares its weights"):
        adapted(tied, lora_targets=f"q_proj,{target}")


def test_what_is_no_linear_layer_or_not_there_is_refused(small: str) -> None:
    for target, why in (("embed_tokens", "no linear layer"), ("qq_proj", "no layer 'qq_proj'")):
        with pytest.raises(UnsuitableTarget, match=why):
            adapted(small, lora_targets=target)


def test_named_targets(small: str) -> None:
    learner = adapted(small, lora_targets="q_proj, lm_head")
    assert {name.split(".lora_")[0].rsplit(".", 1)[-1] for name in learner.parameters} == {"q_proj", "lm_head"}


@pytest.mark.parametrize("which", ["small", "tied"])
def test_the_merge_is_that_of_peft(which: str, request: pytest.FixtureRequest) -> None:
    learner = adapted(request.getfixturevalue(which), dtype=torch.float32)
    ours = dict(merged_tensors(learner.model))
    theirs = copy.deepcopy(learner.model).merge_and_unload().state_dict()
    assert ours.keys() == theirs.keys()
    for name, tensor in theirs.items():
        torch.testing.assert_close(ours[name], tensor, rtol=1e-6, atol=1e-7)


def test_the_merge_leaves_the_model_as_it_is(small: str) -> None:
    learner = adapted(small)
    before = {name: one.clone() for name, one in learner.model.state_dict().items()}
    merged = dict(merged_tensors(learner.model))
    after = learner.model.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
    base = load_folder(small, ModelSection()).model.state_dict()
    changed = {name for name in base if not torch.equal(base[name], merged[name])}
    assert changed == {name for name in base if name.endswith("_proj.weight")}, "exactly the targets"


def test_an_adapter_of_zero_merges_to_identical_bytes(small: str) -> None:
    learner = adapted(small, moved=False)
    base = load_folder(small, ModelSection()).model.state_dict()
    merged = dict(merged_tensors(learner.model))
    assert merged.keys() == base.keys()
    assert all(torch.equal(merged[name].view(torch.uint8), base[name].view(torch.uint8)) for name in base)


def test_the_sum_is_made_in_float32(small: str) -> None:
    """An update of 2^-10 of a weight, twice: in bfloat16 each would vanish, in float32 they do not before the end."""
    learner = adapted(small, dtype=torch.bfloat16)
    merged = dict(merged_tensors(learner.model))
    base = learner.plain
    for name, module in base.named_modules():
        if hasattr(module, "lora_A"):
            update = module.lora_B["default"].weight.float() @ module.lora_A["default"].weight.float()
            exact = module.base_layer.weight.float() + update * module.scaling["default"]
            assert torch.equal(merged[f"{name}.weight"], exact.to(torch.bfloat16))


@pytest.mark.parametrize("which", ["small", "tied"])
def test_the_published_folder_says_what_base_and_adapter_say(
    which: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    learner = adapted(request.getfixturevalue(which))
    learner.save_version(tmp_path)
    reloaded = AutoModelForCausalLM.from_pretrained(tmp_path, dtype="auto")
    with torch.no_grad():
        torch.testing.assert_close(
            reloaded(input_ids=PROBE).logits, learner.model(input_ids=PROBE).logits, rtol=0, atol=1e-4
        )


def test_a_tied_model_is_published_with_one_matrix(tied: str, tmp_path: Path) -> None:
    for method in ("full", "lora"):
        learner = TorchLearner(load_folder(tied, ModelSection()), settings(method=method))
        learner.save_version(tmp_path / method)
        reloaded: Any = AutoModelForCausalLM.from_pretrained(tmp_path / method, dtype="auto")
        assert reloaded.lm_head.weight is reloaded.get_input_embeddings().weight
        assert torch.equal(reloaded.lm_head.weight, learner.plain.lm_head.weight)


def test_bfloat16_is_published_as_bfloat16(small: str, tmp_path: Path) -> None:
    for method in ("full", "lora"):
        learner = TorchLearner(load_folder(small, ModelSection(), torch.bfloat16), settings(method=method))
        learner.save_version(tmp_path / method)
        assert AutoModelForCausalLM.from_pretrained(tmp_path / method, dtype="auto").dtype == torch.bfloat16


def test_a_checkpoint_is_not_held_twice_while_it_is_put_back(small: str) -> None:
    for method in ("full", "lora"):
        learner = TorchLearner(load_folder(small, ModelSection()), settings(method=method))
        learner.step([Encoded([1, 2, 3], [True] * 3)], 0, settings().training, lambda: None)
        groups, state = learner.capture()
        groups = {stem: {name: one.clone() for name, one in group.items()} for stem, group in groups.items()}
        learner.restore(groups, state)
        assert {stem: len(group) for stem, group in groups.items() if group} == {"rng": 1}


def test_dropout_comes_with_the_job(small: str) -> None:
    learner = adapted(small, dropout=0.5)
    learner.model.train()
    set_dropout(learner.model, 0.0)
    with torch.no_grad():
        first, second = (learner.model(input_ids=PROBE).logits for _ in range(2))
    assert torch.equal(first, second)
    set_dropout(learner.model, 0.5)
    with torch.no_grad():
        assert not torch.equal(first, learner.model(input_ids=PROBE).logits)


def test_tensors_lie_in_storage_of_their_own(small: str) -> None:
    """Readers of safetensors leave them at any alignment, and some kernels round differently there."""
    model = load_folder(small, ModelSection()).model
    settle(model, torch.device("cpu"), torch.float32)
    assert all(one.data_ptr() % 64 == 0 and one.storage_offset() == 0 for one in model.parameters())


def test_tied_weights_stay_tied(tied: str) -> None:
    model: Any = load_folder(tied, ModelSection()).model
    settle(model, torch.device("cpu"), torch.float32)
    assert model.lm_head.weight.data_ptr() == model.get_input_embeddings().weight.data_ptr()
    assert model.lm_head.weight is model.get_input_embeddings().weight
