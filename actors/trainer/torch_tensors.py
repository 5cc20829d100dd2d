"""The bytes of torch tensors, and tensors from bytes. The only module of the checkpoint that imports torch."""

from __future__ import annotations

import torch

from actors.trainer.tensorfile import RawTensor

DTYPES = {
    "BOOL": torch.bool, "U8": torch.uint8, "I8": torch.int8, "I16": torch.int16, "I32": torch.int32, "I64": torch.int64,
    "F16": torch.float16, "BF16": torch.bfloat16, "F32": torch.float32, "F64": torch.float64, "C64": torch.complex64,
}  # fmt: skip
NAMES = {dtype: name for name, dtype in DTYPES.items()}


class TorchCodec:
    """The :class:`~actors.trainer.checkpoint.TensorCodec` of torch."""

    def raw(self, tensor: torch.Tensor) -> RawTensor:
        """Return the tensor's bytes. Views and tensors that share a storage are written out on their own.

        On the CPU a contiguous tensor is not copied: it must not change until the file is written.
        """
        flat = tensor.detach().to("cpu").contiguous().reshape(-1).view(torch.uint8)
        return RawTensor(NAMES[tensor.dtype], tuple(tensor.shape), flat.numpy().data)

    def empty(self, dtype: str, shape: tuple[int, ...]) -> tuple[torch.Tensor, memoryview]:
        """Return a fresh CPU tensor, in storage aligned as at a first start, and its bytes to be filled in."""
        tensor = torch.empty(shape, dtype=DTYPES[dtype])
        return tensor, tensor.reshape(-1).view(torch.uint8).numpy().data
