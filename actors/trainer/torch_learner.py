"""The thing that learns, with torch: a model, its optimizer, one step, and what a checkpoint holds of it."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from actors.trainer import adapter, rng
from actors.trainer.data import micro_batches
from actors.trainer.engine import Encoded, Groups, StepResult, Unlike, WrongShape
from actors.trainer.loss import summed_loss
from actors.trainer.masks import Encoder
from actors.trainer.model import Source, longest_row, pick_device, save_model, settle
from actors.trainer.optimizer import learning_rate, make_optimizer, moments, restore_moments, set_hyperparameters
from actors.trainer.packing import Unpackable, check_isolation, packs
from protocol.config import Config, TrainingSection


class NotFinite(Exception):
    """The loss or the gradient of a step is infinite or not a number. The weights have not been touched."""


class TorchLearner:
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

    def encoder(self, training: TrainingSection) -> Encoder:
        return Encoder(self.tokenizer, longest_row(self.model.config, training))

    def begin_job(self, training: TrainingSection) -> list[str]:
        problem = self._unpackable(training) if training.packing else None
        self._packs = training.packing and problem is None
        if self.method == "lora":
            adapter.set_dropout(self.model, training.dropout)
        self.model.train()
        unkept = [f"training.packing is left off: {problem}"] if problem is not None else []
        if (longest := longest_row(self.model.config, training)) < training.max_length:
            unkept.append(f"training.max_length is {longest}: the model has no more positions")
        return unkept

    def step(
        self, rows: Sequence[Encoded], number: int, training: TrainingSection, beat: Callable[[], None]
    ) -> StepResult:
        """Make one optimizer step, in as many passes as ``training.micro_batch_tokens`` asks for.

        The tokens are counted before the first backward pass, over the whole step and after the shift.

        Raises:
            NotFinite: nothing was changed.
        """
        count = sum(row.targets for row in rows)
        loss = 0.0
        split = packs if self._packs else micro_batches
        for batch in split(rows, training.micro_batch_tokens):
            with self.autocast():
                part = summed_loss(self.model, batch, self.device, packed=self._packs) / count
            part.backward()  # type: ignore[no-untyped-call]
            loss += float(part.detach())
            beat()
        norm = float(torch.nn.utils.clip_grad_norm_(self.parameters.values(), training.max_grad_norm))
        if not (math.isfinite(loss) and math.isfinite(norm)):
            self.optimizer.zero_grad(set_to_none=True)
            raise NotFinite(f"optimizer step {number}: loss {loss}, gradient norm {norm}")
        rate = learning_rate(number, self.warm_from, training)
        set_hyperparameters(self.optimizer, rate, training)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return StepResult(loss, count, sum(len(row.ids) for row in rows), norm, rate)

    def autocast(self) -> contextlib.AbstractContextManager[Any]:
        """Compute in bfloat16 on an accelerator if the model is stored in 16 bits; masters and optimizer stay float32.

        Also if those are float16: its gradients would need scaling not to vanish, and bfloat16's do not.
        """
        if self.device.type != "cpu" and self.stored_types() & {torch.bfloat16, torch.float16}:
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
        """Put a checkpoint back: values are moved into this learner's own storage; the random states come last."""
        saved = groups[self._stem]
        if saved.keys() != self.parameters.keys():
            strange = sorted(saved.keys() ^ self.parameters.keys())
            raise WrongShape(f"the checkpoint is of another model or method: {strange[0]} and {len(strange) - 1} more")
        with torch.no_grad():
            for name, parameter in self.parameters.items():
                if saved[name].shape != parameter.shape:
                    raise WrongShape(f"{name} is {tuple(saved[name].shape)} in the checkpoint: another model or rank")
                parameter.copy_(saved.pop(name))
        restore_moments(self.optimizer, self.parameters, groups["optimizer"])
        self.warm_from = int(state["warm_from"])
        rng.restore(groups["rng"], state["rng"])

    def rewarm(self, step: int) -> None:
        self.warm_from = step

    def published(self) -> dict[str, torch.Tensor]:
        """Return the full model's tensors as a version stores them, on the CPU.

        Copied one by one where training holds them otherwise: an accelerator has no room for them all a second time.
        """
        with torch.no_grad():
            tensors = adapter.merged_tensors(self.model) if self.method == "lora" else self.model.state_dict().items()
            return {name: tensor.detach().to("cpu", self._stored[name]) for name, tensor in tensors}

    def save_version(self, folder: Path) -> None:
        """Write the published model and its tokenizer into ``folder``; training does not notice."""
        with rng.undisturbed():
            save_model(folder, self.plain, self.tokenizer, self.published())

    def stored_types(self) -> set[torch.dtype]:
        """Return the floating types that versions store."""
        return {dtype for dtype in self._stored.values() if dtype.is_floating_point}

    def _unpackable(self, training: TrainingSection) -> str | None:
        """Say why this model cannot be trained on packed rows, or None if it can."""
        try:
            with rng.undisturbed():
                check_isolation(self.model, self.device, longest_row(self.model.config, training))
        except Unpackable as error:
            return str(error)
        return None

    @contextlib.contextmanager
    def aside(self) -> Iterator[None]:
        """Make room on the device for another model while the block runs; if it fails, come back to it."""
        self.model.to("cpu")
        try:
            yield
        except Unlike:
            self.model.to(self.device)
            raise

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
