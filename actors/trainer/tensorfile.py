"""The safetensors format, torch-free: plan a file's bytes, read its table of contents, digest its tensors.

The format is a little-endian u64 length, that many bytes of JSON (name -> dtype, shape, offsets), then the tensors'
bytes, contiguous (https://github.com/huggingface/safetensors). A reader of our own, because the library maps the file:
a mapped tensor lies at an odd alignment, on which some kernels round differently, and a disk error under a map is a
SIGBUS. A writer of our own, because the checkpoint hashes exactly the bytes that it writes, and a torch-free trainer
writes the same files.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import BinaryIO

CHUNK = 8 << 20
MAX_HEADER = 100_000_000
"""The limit of the safetensors library itself."""

DTYPE_BITS = {
    "BOOL": 8, "U8": 8, "I8": 8, "F8_E4M3": 8, "F8_E5M2": 8, "F8_E8M0": 8, "U16": 16, "I16": 16, "F16": 16, "BF16": 16,
    "U32": 32, "I32": 32, "F32": 32, "U64": 64, "I64": 64, "F64": 64, "C64": 64,
}  # fmt: skip


class BadTensorFile(Exception):
    """The file is not a safetensors file, or its table of contents contradicts itself."""


@dataclass(frozen=True, slots=True)
class RawTensor:
    """One tensor as it goes to disk: ``data`` is its contiguous bytes."""

    dtype: str
    shape: tuple[int, ...]
    data: memoryview


@dataclass(frozen=True, slots=True)
class Slot:
    """Where one tensor lies in a file: absolute byte offsets, ``end`` exclusive."""

    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int


def pieces(tensors: Mapping[str, RawTensor]) -> list[memoryview]:
    """Return the bytes of a file that holds these tensors, as a list of buffers to be written one after the other.

    Wide dtypes come first, so that every tensor is aligned to its element size, as the library does it.
    """
    names = sorted(tensors, key=lambda name: (-DTYPE_BITS[tensors[name].dtype], name))
    table: dict[str, object] = {"__metadata__": {"format": "pt"}}
    offset = 0
    for name in names:
        tensor = tensors[name]
        end = offset + tensor.data.nbytes
        table[name] = {"dtype": tensor.dtype, "shape": list(tensor.shape), "data_offsets": [offset, end]}
        offset = end
    header = json.dumps(table, separators=(",", ":"), ensure_ascii=False).encode()
    header += b" " * (-len(header) % 8)
    start = memoryview(len(header).to_bytes(8, "little") + header)
    return [start, *(tensors[name].data for name in names if tensors[name].data.nbytes)]


def contents(file: BinaryIO) -> dict[str, Slot]:
    """Read the table of contents of an open safetensors file.

    Raises:
        BadTensorFile: the header is not JSON, or an entry lies outside the file or has the wrong length.
    """
    size = file.seek(0, io.SEEK_END)
    file.seek(0)
    length = int.from_bytes(file.read(8), "little")
    if size < 8 or length > min(MAX_HEADER, size - 8):
        raise BadTensorFile(f"a header of {length} bytes in a file of {size}")
    try:
        table = json.loads(file.read(length))
        entries = [(name, entry["dtype"], entry["shape"], entry["data_offsets"]) for name, entry in table.items()
                   if name != "__metadata__"]  # fmt: skip
        slots = {
            name: Slot(str(dtype), tuple(map(int, shape)), 8 + length + int(begin), 8 + length + int(end))
            for name, dtype, shape, (begin, end) in entries
        }
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise BadTensorFile(f"its header cannot be read: {error}") from error
    for name, slot in slots.items():
        expected = DTYPE_BITS.get(slot.dtype, 0) * prod(slot.shape) // 8
        if (
            slot.dtype not in DTYPE_BITS
            or slot.end - slot.begin != expected
            or not 8 + length <= slot.begin <= slot.end <= size
        ):
            raise BadTensorFile(
                f"tensor {name!r} ({slot.dtype}, {slot.shape}) does not fit bytes {slot.begin}..{slot.end}"
            )
    return slots


def weights_sha256(folder: Path) -> str:
    """Return the sha256 over names, shapes, dtypes and bytes, in name order, of the tensors in ``*.safetensors``.

    Independent of how the tensors are spread over files, so that it names the weights and not their packaging.

    Raises:
        BadTensorFile: a file is damaged, or two hold a tensor of the same name.
        FileNotFoundError: there is no safetensors file.
    """
    where: dict[str, tuple[Path, Slot]] = {}
    paths = sorted(folder.glob("*.safetensors"))
    if not paths:
        raise FileNotFoundError(f"{folder} holds no safetensors file")
    for path in paths:
        with path.open("rb") as file:
            for name, slot in contents(file).items():
                if name in where:
                    raise BadTensorFile(f"tensor {name!r} is in {where[name][0].name} and in {path.name}")
                where[name] = (path, slot)
    digest = hashlib.sha256()
    for name in sorted(where):
        path, slot = where[name]
        digest.update(json.dumps([name, list(slot.shape), slot.dtype]).encode() + b"\n")
        with path.open("rb") as file:
            file.seek(slot.begin)
            left = slot.end - slot.begin
            while left:
                chunk = file.read(min(CHUNK, left))
                if not chunk:
                    raise BadTensorFile(f"{path} ended inside tensor {name!r}")
                digest.update(chunk)
                left -= len(chunk)
    return digest.hexdigest()
