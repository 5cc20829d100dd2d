"""The engine of torch and transformers."""

from __future__ import annotations

import gc
import importlib.metadata
import platform
import sys
from pathlib import Path

import torch

from actors.trainer import rng
from actors.trainer.device import free_memory
from actors.trainer.engine import Learner, Unlike
from actors.trainer.model import Source, load_folder, load_source, pick_device, prepare_torch, thread_count
from actors.trainer.probe import differ, probe_logits
from actors.trainer.torch_learner import TorchLearner
from actors.trainer.torch_tensors import TorchCodec
from protocol.config import Config


class TorchEngine:
    """The :class:`~actors.trainer.engine.Engine` of the real trainer."""

    codec = TorchCodec()

    def prepare(self, config: Config) -> None:
        prepare_torch(config)

    def identity(self, config: Config) -> dict[str, str]:
        device = pick_device(config.model.device)
        named = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine()
        libraries = ("stokehold", "torch", "transformers", "peft", "numpy")
        cudnn = torch.backends.cudnn.version()  # type: ignore[no-untyped-call]
        return {
            **{name: _version(name) for name in libraries},
            "python": ".".join(map(str, sys.version_info[:3])),
            "cuda": f"{torch.version.cuda} cudnn {cudnn}" if device.type == "cuda" else "none",
            "instructions": torch.backends.cpu.get_cpu_capability(),
            "device": f"{device.type} {named}",
            "threads": str(thread_count(config.training)),
            "deterministic": str(config.training.deterministic).lower(),
        }

    def load(self, config: Config) -> TorchLearner:
        """Raises: OSError: there is no such folder or hub model."""
        return self._seeded(load_source(config.model, config.training.seed), config)

    def reload(self, folder: Path, config: Config) -> TorchLearner:
        return self._seeded(load_folder(folder, config.model), config)

    def merge(self, learner: Learner, folder: Path, config: Config) -> TorchLearner:
        assert isinstance(learner, TorchLearner)
        tensors, state = rng.capture()
        expected = probe_logits(learner.model, learner.device)
        with learner.aside():
            fresh = TorchLearner(load_folder(folder, config.model), config)
            if problem := differ(expected, probe_logits(fresh.model, fresh.device), fresh.stored_types()):
                del fresh
                self.release()
                rng.restore(tensors, state)
                raise Unlike(problem)
        return fresh

    def release(self) -> None:
        gc.collect()
        free_memory()

    def _seeded(self, source: Source, config: Config) -> TorchLearner:
        rng.seed_all(config.training.seed)
        return TorchLearner(source, config)


def _version(distribution: str) -> str:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:  # ours, run from a checkout that was not installed
        return "unknown"
