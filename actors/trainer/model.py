"""Where a model comes from, and how it is laid into memory."""

from __future__ import annotations

import copy
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors import SafetensorError
from transformers import AutoModelForCausalLM, AutoTokenizer

from actors.trainer.device import accelerator
from actors.trainer.tiny import tiny_model, tiny_tokenizer
from protocol.config import Config, ModelSection, TrainingSection

DTYPES: dict[str, Any] = {"auto": "auto", "float32": torch.float32, "bfloat16": torch.bfloat16}
_OS_ERROR = re.compile(r"\(os error (\d+)\)")
"""How Rust's standard library ends the text of an error that the system reported."""


@dataclass(frozen=True, slots=True)
class Source:
    """A model as it was found, on the CPU, in the types that it is published in."""

    model: Any
    tokenizer: Any

    def stored(self) -> dict[str, torch.dtype]:
        """Return the type of each tensor: what is published later has the same."""
        return {name: tensor.dtype for name, tensor in self.model.state_dict().items()}


def prepare_torch(config: Config) -> None:
    """Set what must be set in the training thread itself before its first operation: threads and determinism.

    On an accelerator attention is left with the plain kernel: the backward passes of the others add atomically, in any
    order. On the CPU theirs do not.
    """
    training = config.training
    transformers.utils.logging.disable_progress_bar()
    torch.set_num_threads(thread_count(training))
    torch.use_deterministic_algorithms(training.deterministic)
    if not training.deterministic:
        return
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read when CUDA starts
    torch.backends.cudnn.benchmark = False
    # It makes a bug show that reads what it never wrote, and takes 5 % of each step.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    if pick_device(config.model.device).type != "cpu":
        for enable in (
            torch.backends.cuda.enable_flash_sdp,
            torch.backends.cuda.enable_mem_efficient_sdp,
            torch.backends.cuda.enable_cudnn_sdp,
        ):
            enable(False)


def thread_count(training: TrainingSection) -> int:
    """Return the CPU threads to compute with: as set, or as many as this process may run on."""
    return training.threads or len(os.sched_getaffinity(0))


def pick_device(wanted: str) -> torch.device:
    """Return the device named, or for ``"auto"`` the first accelerator that torch sees, else the CPU."""
    if wanted != "auto":
        return torch.device(wanted)
    return accelerator() or torch.device("cpu")


def longest_row(settings: Any, training: TrainingSection) -> int:
    """Return how many tokens a row may have: ``training.max_length``, but no more than the model has positions for.

    ``settings``: the model's configuration.
    """
    positions = getattr(settings.get_text_config(), "max_position_embeddings", None)
    return min(training.max_length, positions) if positions else training.max_length


def load_source(settings: ModelSection, seed: int) -> Source:
    """Make or read the model that ``model.source`` names.

    Raises:
        OSError: there is no such folder or hub model.
    """
    if settings.source == "tiny":
        tokenizer = tiny_tokenizer()
        model = tiny_model(tokenizer, seed)
        return Source(model if settings.dtype == "auto" else model.to(DTYPES[settings.dtype]), tokenizer)
    return load_folder(settings.source, settings, DTYPES[settings.dtype])


def load_folder(source: str | Path, settings: ModelSection, dtype: Any = "auto") -> Source:
    """Read a model and its tokenizer from a folder or the hub. ``dtype``: always said, never left to a default."""
    trust = settings.trust_remote_code
    model = AutoModelForCausalLM.from_pretrained(source, dtype=dtype, trust_remote_code=trust)
    return Source(model, AutoTokenizer.from_pretrained(source, trust_remote_code=trust))


def settle(model: Any, device: torch.device, trained_in: torch.dtype | None) -> None:
    """Move every tensor of the model into storage of its own, freshly allocated on ``device``.

    Readers of safetensors leave tensors at any alignment, and some kernels round differently at another one, so a run
    that resumes must lie in memory as the one that began. Tied weights stay tied. With ``trained_in``, floating
    parameters become masters of that type.
    """
    for parameter in model.parameters():
        floating = parameter.is_floating_point()
        dtype = trained_in if trained_in is not None and floating else parameter.dtype
        parameter.data = torch.empty(parameter.shape, dtype=dtype, device=device).copy_(parameter.data)
    for module in model.modules():
        for name, buffer in module.named_buffers(recurse=False):
            module._buffers[name] = torch.empty_like(buffer, device=device).copy_(buffer)


def save_model(folder: Path, model: Any, tokenizer: Any, tensors: dict[str, torch.Tensor]) -> None:
    """Write a folder that ``AutoModelForCausalLM.from_pretrained`` loads: ``tensors`` in the shape of ``model``.

    The model itself may hold other types (float32 masters) or names (an adapter's): it lends its class and its
    configuration to a skeleton without memory, and neither it nor its tensors are touched.

    Raises:
        OSError: the disk is full or broken.
    """
    floating = next(tensor.dtype for tensor in tensors.values() if tensor.is_floating_point())
    with torch.device("meta"):
        skeleton = type(model)(copy.deepcopy(model.config)).to(floating)
    if model.can_generate():
        skeleton.generation_config = copy.deepcopy(model.generation_config)
    with _ErrorsOfTheSystem():
        skeleton.save_pretrained(folder, state_dict=tensors)
        tokenizer.save_pretrained(folder)


class _ErrorsOfTheSystem:
    """Raises as ``OSError`` what the system said to the libraries in Rust: a full disk is to be waited for like any.

    safetensors has a class of its own for it; tokenizers raises ``Exception`` itself, and only that is looked at.
    """

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if kind in (Exception, SafetensorError) and (told := _OS_ERROR.search(str(error))) is not None:
            raise OSError(int(told[1]), os.strerror(int(told[1]))) from error
