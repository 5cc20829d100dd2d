"""The thing that learns, and what a checkpoint holds of it: named tensors and a state that JSON can carry."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from actors.trainer import adapter, rng
from actors.trainer.model import Source, pick_device, save_model, settle
from actors.trainer.optimizer import make_optimizer, moments, restore_moments
from actors.trainer.packing import check_isolation
from protocol.config import Config, TrainingSection

Groups = dict[str, dict[str, torch.Tensor]]


class Learner:
    """A model with its optimizer, on its device.

    Full fine-tuning trains float32 masters of every weight; LoRA trains a float32 adapter on weights frozen as stored.
    """

    def __init__(self, source: Source, config: Config) -> None:
        """Take over the source's model. Draws from torch's generator (the adapter's A)."""
        self.method = config.training.method
        self.tokenizer = source.tokenizer
        self.device = pick_device(config.model.device)
        self.warm_from = 0
        self._packs = False
        self._stored = source.stored()
        self._model_bytes: int = sum(one.numel() * one.element_size() for one in source.model.state_dict().values())
        if self.method == "lora":
            settle(source.model, self.device, None)
            self.model = adapter.add_adapter(source.model, config.training)
        else:
            settle(source.model, self.device, torch.float32)
            self.model = source.model
        self.parameters: dict[str, torch.nn.Parameter] = {
            name: one for name, one in self.model.named_parameters() if one.requires_grad
        }
        self.optimizer = make_optimizer(self.parameters, config.training)
        self.model.train()

    def begin_job(self, training: TrainingSection) -> None:
        """Take over the settings of the job that is trained next.

        Raises:
            Unpackable: it is to be packed, and this model cannot be.
        """
        if training.packing and not self._packs:
            with rng.undisturbed():
                check_isolation(self.model, self.device)
            self._packs = True
        if self.method == "lora":
            adapter.set_dropout(self.model, training.dropout)
        self.model.train()

    def autocast(self) -> contextlib.AbstractContextManager[Any]:
        """Compute in bfloat16 on an accelerator if the model is published so; masters and optimizer stay float32."""
        if self.device.type != "cpu" and torch.bfloat16 in self._stored.values():
            return torch.autocast(self.device.type, torch.bfloat16)
        return contextlib.nullcontext()

    def capture(self) -> tuple[Groups, dict[str, Any]]:
        """Return what a checkpoint must hold for the next step to be the same to the last bit."""
        random, state = rng.capture()
        groups = {
            self._stem: {name: parameter.detach() for name, parameter in self.parameters.items()},
            "optimizer": moments(self.optimizer, self.parameters),
            "rng": random,
        }
        return groups, {"rng": state, "warm_from": self.warm_from}

    def restore(self, groups: Groups, state: Mapping[str, Any]) -> None:
        """Put a checkpoint back: values are copied into this learner's own storage; the random states come last."""
        saved = groups[self._stem]
        if saved.keys() != self.parameters.keys():
            strange = sorted(saved.keys() ^ self.parameters.keys())
            raise WrongShape(f"the checkpoint is of another model or method: {strange[0]} and {len(strange) - 1} more")
        with torch.no_grad():
            for name, parameter in self.parameters.items():
                if saved[name].shape != parameter.shape:
                    raise WrongShape(f"{name} is {tuple(saved[name].shape)} in the checkpoint: another model or rank")
                parameter.copy_(saved[name])
        restore_moments(self.optimizer, self.parameters, groups["optimizer"])
        self.warm_from = int(state["warm_from"])
        rng.restore(groups["rng"], state["rng"])

    def published(self) -> dict[str, torch.Tensor]:
        """Return the full model's tensors as a version stores them, copied where training holds them otherwise."""
        with torch.no_grad():
            tensors = adapter.merged_tensors(self.model) if self.method == "lora" else self.model.state_dict()
            return {name: tensor.detach().to(self._stored[name]) for name, tensor in tensors.items()}

    def save_version(self, folder: Path) -> None:
        """Write the published model and its tokenizer into ``folder``; training does not notice."""
        with rng.undisturbed():
            save_model(folder, self.plain, self.tokenizer, self.published())

    def stored_types(self) -> set[torch.dtype]:
        """Return the floating types that versions store."""
        return {dtype for dtype in self._stored.values() if dtype.is_floating_point}

    @property
    def plain(self) -> Any:
        """The model of transformers, with no wrapper around it."""
        return self.model.get_base_model() if self.method == "lora" else self.model

    def checkpoint_bytes(self) -> int:
        """Estimate of a checkpoint: weights in training and AdamW's two moments, in float32."""
        return 12 * sum(parameter.numel() for parameter in self.parameters.values()) + (1 << 20)

    def version_bytes(self) -> int:
        """Estimate of a version: every tensor in the type it is stored in."""
        return self._model_bytes + (8 << 20)

    @property
    def _stem(self) -> str:
        return "adapter" if self.method == "lora" else "weights"


class WrongShape(Exception):
    """A checkpoint does not fit the model that the settings describe."""
