"""LoRA weights in a safetensors file, read without a tensor library.

The format: 8 bytes little-endian header length, a JSON header of names to
``{dtype, shape, data_offsets}``, then the bytes. Only numpy is needed, and no pickle.
"""

import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from serving.errors import ArtifactInvalid

_MAX_HEADER_BYTES = 64 * 1024 * 1024
_CHUNK_VALUES = 4 * 1024 * 1024
_LORA_NAME = re.compile(r"^(?:base_model\.model\.)?(?P<module>.+)\.lora_(?P<side>[AB])\.weight$")
_LAYER = re.compile(r"(?:^|\.)layers\.(\d+)\.")

# Bit patterns without the sign: at or above the limit a value is infinite, not a number, or
# too large for an engine that computes in half precision.
_BITS: Mapping[str, tuple[type[np.unsignedinteger[Any]], int, int]] = {
    "BF16": (np.uint16, 0x7FFF, 0x4780),
    "F16": (np.uint16, 0x7FFF, 0x7C00),
    "F32": (np.uint32, 0x7FFFFFFF, 0x47800000),
}


@dataclass(frozen=True, slots=True)
class Tensor:
    """One tensor's place in the file; ``start`` counts from the file's first byte."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    start: int

    @property
    def values(self) -> int:
        """How many numbers it holds."""
        return math.prod(self.shape)

    @property
    def item_bytes(self) -> int:
        """Bytes of one number."""
        return np.dtype(_BITS[self.dtype][0]).itemsize

    @property
    def size(self) -> int:
        """Bytes of all numbers."""
        return self.values * self.item_bytes


@dataclass(frozen=True, slots=True)
class Pair:
    """The two halves of one module's update: A is (rank, in), B is (out, rank)."""

    module: str
    a: Tensor
    b: Tensor

    @property
    def kind(self) -> str:
        """The module's own name, without its path."""
        return self.module.rsplit(".", 1)[-1]

    @property
    def layer(self) -> int | None:
        """The layer it belongs to, when the name tells."""
        found = _LAYER.search(self.module)
        return int(found.group(1)) if found else None


def read_tensors(path: Path) -> tuple[Tensor, ...]:
    """The tensors of a safetensors file, by name. ArtifactInvalid when it is malformed."""
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if size < 8 or length > min(size - 8, _MAX_HEADER_BYTES):
            raise ArtifactInvalid(f"{path} is not a safetensors file, or is cut short")
        try:
            header = json.loads(file.read(length))
        except ValueError as error:
            raise ArtifactInvalid(f"{path} has an unreadable safetensors header") from error
    if not isinstance(header, dict):
        raise ArtifactInvalid(f"{path} has an unreadable safetensors header")
    entries = {name: entry for name, entry in header.items() if name != "__metadata__"}
    if not entries:
        raise ArtifactInvalid(f"{path} holds no tensors")
    return tuple(_tensor(path, name, entries[name], 8 + length, size) for name in sorted(entries))


def _tensor(path: Path, name: str, entry: Any, base: int, size: int) -> Tensor:
    try:
        dtype, shape = entry["dtype"], tuple(int(extent) for extent in entry["shape"])
        start, end = (int(offset) for offset in entry["data_offsets"])
    except (KeyError, TypeError, ValueError) as error:
        raise ArtifactInvalid(f"{path}: tensor {name} is not described as it must be") from error
    if dtype not in _BITS:
        raise ArtifactInvalid(f"{path}: tensor {name} is {dtype}; allowed: {', '.join(_BITS)}")
    tensor = Tensor(name=name, dtype=dtype, shape=shape, start=base + start)
    if min(shape, default=0) <= 0 or start < 0 or end - start != tensor.size or base + end > size:
        raise ArtifactInvalid(f"{path}: tensor {name} does not fit its place in the file")
    return tensor


def lora_pairs(tensors: Sequence[Tensor]) -> tuple[Pair, ...]:
    """The tensors as A and B halves; ArtifactInvalid for anything that is not one of them."""
    halves: dict[str, dict[str, Tensor]] = {}
    for tensor in tensors:
        found = _LORA_NAME.match(tensor.name)
        if found is None:
            raise ArtifactInvalid(
                f"{tensor.name} is not a LoRA weight: vLLM serves only lora_A and lora_B of linear "
                "layers (no embeddings, biases, DoRA magnitudes or whole modules)"
            )
        halves.setdefault(found["module"], {})[found["side"]] = tensor
    lonely = sorted(module for module, sides in halves.items() if len(sides) != 2)
    if lonely:
        raise ArtifactInvalid(f"{lonely[0]} has only one of lora_A and lora_B")
    return tuple(Pair(module, halves[module]["A"], halves[module]["B"]) for module in halves)


def check_finite(path: Path, tensors: Sequence[Tensor]) -> None:
    """ArtifactInvalid when a value is not finite, even in half precision.

    One such adapter breaks the answers of every other adapter in the same engine.
    """
    with path.open("rb") as file:
        for tensor in tensors:
            _, mask, limit = _BITS[tensor.dtype]
            for bits in _chunks(file, tensor):
                if bool(np.any((bits & mask) >= limit)):
                    raise ArtifactInvalid(
                        f"{tensor.name} holds values that are not finite (or beyond half precision)"
                    )


def _chunks(file: BinaryIO, tensor: Tensor) -> Iterator[npt.NDArray[np.unsignedinteger[Any]]]:
    unsigned = _BITS[tensor.dtype][0]
    file.seek(tensor.start)
    left = tensor.values
    while left:
        count = min(left, _CHUNK_VALUES)
        yield np.frombuffer(file.read(count * tensor.item_bytes), dtype=unsigned)
        left -= count


def write_canonical(source: Path, tensors: Sequence[Tensor], target: BinaryIO) -> None:
    """Write the same tensors so that equal weights are equal bytes.

    Largest numbers first keeps every tensor aligned; no metadata, no free choice of order.
    """
    ordered = sorted(tensors, key=lambda tensor: (-tensor.item_bytes, tensor.name))
    header: dict[str, Any] = {}
    offset = 0
    for tensor in ordered:
        header[tensor.name] = {
            "dtype": tensor.dtype,
            "shape": list(tensor.shape),
            "data_offsets": [offset, offset + tensor.size],
        }
        offset += tensor.size
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    target.write(len(text).to_bytes(8, "little") + text)
    with source.open("rb") as file:
        for tensor in ordered:
            target.writelines(bits.data for bits in _chunks(file, tensor))
