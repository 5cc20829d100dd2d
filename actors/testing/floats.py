"""Tensors without a tensor library: one-dimensional arrays of doubles, in the same files as torch's."""

from __future__ import annotations

from array import array

from actors.trainer.tensorfile import RawTensor


class FloatCodec:
    """The :class:`~actors.trainer.checkpoint.TensorCodec` of ``array("d")``."""

    def raw(self, tensor: array[float]) -> RawTensor:
        """Return the array's own bytes, uncopied."""
        return RawTensor("F64", (len(tensor),), memoryview(tensor).cast("B"))

    def empty(self, dtype: str, shape: tuple[int, ...]) -> tuple[array[float], memoryview]:
        """Return an array of zeros, and its bytes.

        Raises:
            ValueError: the file holds something else than one-dimensional F64.
        """
        if dtype != "F64" or len(shape) != 1:
            raise ValueError(f"not an array of doubles: {dtype} of shape {shape}")
        values = array("d", bytes(8 * shape[0]))
        return values, memoryview(values).cast("B")
