"""Adapters as a trainer leaves them, without a trainer."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

BASE = {
    "model_type": "qwen3",
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "num_hidden_layers": 2,
    "vocab_size": 64,
}
"""The config of a base that the adapters here fit."""

_WIDTHS = {"q_proj": (16, 32), "v_proj": (16, 16), "down_proj": (32, 16)}
_DTYPES = {np.dtype(np.float32): "F32", np.dtype(np.float16): "F16", np.dtype(np.uint16): "BF16"}

Arrays = Mapping[str, npt.NDArray[Any]]


def lora_weights(
    seed: int = 0, *, rank: int = 8, kinds: Sequence[str] = ("q_proj", "v_proj")
) -> dict[str, npt.NDArray[Any]]:
    """Random A and B for each kind of module in both layers."""
    random = np.random.default_rng(seed)
    weights: dict[str, npt.NDArray[Any]] = {}
    for layer in range(2):
        for kind in kinds:
            inputs, outputs = _WIDTHS[kind]
            part = "mlp" if kind == "down_proj" else "self_attn"
            name = f"base_model.model.model.layers.{layer}.{part}.{kind}"
            a, b = random.normal(size=(rank, inputs)), random.normal(size=(outputs, rank))
            weights[f"{name}.lora_A.weight"] = a.astype(np.float32)
            weights[f"{name}.lora_B.weight"] = b.astype(np.float32)
    return weights


def write_adapter(
    folder: Path, weights: Arrays | None = None, *, rank: int = 8, **settings: Any
) -> Path:
    """A PEFT adapter directory; ``settings`` go into its ``adapter_config.json``."""
    folder.mkdir(parents=True, exist_ok=True)
    config = {
        "peft_type": "LORA",
        "r": rank,
        "lora_alpha": 16,
        "bias": "none",
        "target_modules": ["v_proj", "q_proj"],
        "base_model_name_or_path": "/somewhere/on/the/trainers/machine",
    }
    (folder / "adapter_config.json").write_text(json.dumps(config | settings))
    arrays = lora_weights(rank=rank) if weights is None else weights
    write_safetensors(folder / "adapter_model.safetensors", arrays)
    return folder


def write_safetensors(
    path: Path, arrays: Arrays, *, metadata: Mapping[str, str] | None = None
) -> None:
    """A safetensors file with the tensors in the order given; uint16 stands for bfloat16."""
    header: dict[str, Any] = {"__metadata__": dict(metadata)} if metadata else {}
    offset = 0
    for name, array in arrays.items():
        header[name] = {
            "dtype": _DTYPES[array.dtype],
            "shape": list(array.shape),
            "data_offsets": [offset, offset + array.nbytes],
        }
        offset += array.nbytes
    text = json.dumps(header).encode()
    data = b"".join(array.tobytes() for array in arrays.values())
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)
