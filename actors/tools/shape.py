"""What a model would take, found without its weights: parameters, checkpoint, version, and memory while it trains.

The model is built from its configuration alone, on torch's meta device, and one forward pass is run over tensors that
have a shape and no memory: what autograd would keep for the backward pass is counted, not guessed.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.autograd.graph import saved_tensors_hooks
from torch.func import functional_call
from torch.nn.attention import SDPBackend, sdpa_kernel
from transformers import AutoConfig, AutoModelForCausalLM

from actors.trainer.adapter import add_adapter
from actors.trainer.model import DTYPES, pick_device
from actors.trainer.tiny import tiny_model
from protocol.config import Config, TrainingSection

PROGRAM_BYTES = 800 << 20
"""Of the training process itself: Python, torch, transformers and the tokenizer."""
FOLDER_BYTES = 8 << 20
"""Of a version beside its weights: tokenizer, configuration."""


@dataclass(frozen=True, slots=True)
class Memory:
    """Bytes on the device that computes, at the highest point of an optimizer step, or of making a version."""

    weights: int
    gradients: int
    optimizer: int
    activations: int
    """What the forward pass keeps for the backward pass."""
    logits: int
    """The scores of every token of the vocabulary, and their copies in the loss."""
    program: int
    version: int
    """Of the copies from which a version is made, while there are neither gradients nor activations."""

    @property
    def stepping(self) -> int:
        return self.gradients + self.activations + self.logits

    @property
    def total(self) -> int:
        return self.weights + self.optimizer + self.program + max(self.stepping, self.version)


@dataclass(frozen=True, slots=True)
class Sizes:
    """What does not depend on the length of rows."""

    parameters: int
    trained: int
    weights_bytes: int
    """In memory while training."""
    version_bytes: int
    checkpoint_bytes: int
    vocabulary: int


class ShapedModel:
    """A model without memory, for one choice of method."""

    def __init__(self, config: Config, tokenizer: Any) -> None:
        """Raises: OSError: ``model.source`` is no folder and no hub model."""
        self._config = config
        self.device = pick_device(config.model.device)
        training = config.training
        with torch.device("meta"):
            model = from_configuration(config, tokenizer)
            stored = _bytes(model.parameters())
            copied = _bytes(one for one in model.parameters() if one.dtype != torch.float32)
            self._stored_wide = all(one.dtype == torch.float32 for one in model.parameters())
            model = add_adapter(model, training) if training.method == "lora" else model.float()
        self._model = model.train()
        # a version's copies: in LoRA the whole merged model, loaded beside the other to be compared; of an accelerator
        # they are made in the machine's memory, which is not judged
        self._copies = 0 if self.device.type != "cpu" else stored if training.method == "lora" else copied
        parameters = list(model.parameters())
        trained = sum(one.numel() for one in parameters if one.requires_grad)
        self.sizes = Sizes(
            parameters=sum(one.numel() for one in parameters),
            trained=trained,
            weights_bytes=_bytes(parameters),
            version_bytes=stored + FOLDER_BYTES,
            checkpoint_bytes=12 * trained + (1 << 20),
            vocabulary=int(model.config.get_text_config().vocab_size),
        )

    def memory(self, training: TrainingSection, longest: int | None = None) -> Memory:
        """Return what an optimizer step takes with these lengths and batches.

        Args:
            longest: tokens of the longest row, if known; at most ``training.max_length`` count.
        """
        length = min(longest or training.max_length, training.max_length)
        rows = max(1, training.micro_batch_tokens // length)
        gradients = 4 * self.sizes.trained
        return Memory(
            weights=self.sizes.weights_bytes,
            gradients=gradients,
            optimizer=2 * gradients,
            activations=self._kept(rows, length),
            logits=4 * 4 * rows * length * self.sizes.vocabulary,
            program=PROGRAM_BYTES,
            version=self._copies,
        )

    def _kept(self, rows: int, length: int) -> int:
        """Count the bytes that autograd keeps of one forward pass, beside the weights themselves."""
        kept: dict[int, torch.UntypedStorage] = {}

        def keep(tensor: torch.Tensor) -> torch.Tensor:
            storage = tensor.untyped_storage()
            kept[storage._cdata] = storage  # held, so that no other storage gets its number
            return tensor

        with FakeTensorMode(), self._attention(), self._autocast():
            own = {
                name: torch.empty(one.shape, dtype=one.dtype, device=self.device, requires_grad=one.requires_grad)
                for name, one in [*self._model.named_parameters(), *self._model.named_buffers()]
            }
            ids = torch.zeros(rows, length, dtype=torch.long, device=self.device)
            inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "use_cache": False}
            with saved_tensors_hooks(keep, lambda tensor: tensor):
                functional_call(self._model, own, (), inputs)
            weights = {tensor.untyped_storage()._cdata for tensor in own.values()}
        return sum(storage.nbytes() for number, storage in kept.items() if number not in weights)

    def _attention(self) -> contextlib.AbstractContextManager[Any]:
        """On an accelerator, deterministic training leaves only the plain kernel, which keeps every pair of tokens."""
        if self.device.type != "cpu" and self._config.training.deterministic:
            return sdpa_kernel(SDPBackend.MATH)
        return contextlib.nullcontext()

    def _autocast(self) -> contextlib.AbstractContextManager[Any]:
        if self.device.type != "cpu" and not self._stored_wide:
            return torch.autocast(self.device.type, torch.bfloat16)
        return contextlib.nullcontext()


def _bytes(tensors: Iterable[torch.Tensor]) -> int:
    return sum(one.numel() * one.element_size() for one in tensors)


def from_configuration(config: Config, tokenizer: Any) -> Any:
    """Return a model of the right shape and types with random weights: nothing but its configuration is read."""
    settings = config.model
    if settings.source == "tiny":
        model = tiny_model(tokenizer, config.training.seed)
        return model if settings.dtype == "auto" else model.to(DTYPES[settings.dtype])
    found = AutoConfig.from_pretrained(settings.source, trust_remote_code=settings.trust_remote_code)
    dtype = (getattr(found, "dtype", None) or torch.float32) if settings.dtype == "auto" else DTYPES[settings.dtype]
    return AutoModelForCausalLM.from_config(found, dtype=dtype, trust_remote_code=settings.trust_remote_code)
