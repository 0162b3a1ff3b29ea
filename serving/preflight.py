"""What would stop vLLM from starting, said before anything heavy starts."""

import os
import shutil
import socket
from collections.abc import Iterable, Mapping
from pathlib import Path

import psutil

from serving.errors import LaunchError
from serving.launch import (
    Device,
    EngineSpec,
    Machine,
    environment,
    flag_name,
    kv_cache_bytes,
    model_config,
)
from serving.peft import RANKS

_GIB = 1024**3
_RUNTIME_BYTES = int(1.2 * _GIB)
"""vLLM and torch in two processes, before any weights: 1.1 GiB measured on a CPU."""

_WEIGHT_FILES = ("*.safetensors", "*.bin", "*.gguf")
_CC, _CXX = ("cc", "gcc", "clang"), ("c++", "g++", "clang++")


def check(spec: EngineSpec, machine: Machine, inherited: Mapping[str, str]) -> None:
    """LaunchError that says what is wrong, why it matters and what to do, if anything is.

    ``inherited`` is the environment that vLLM would be started from.
    """
    check_all([spec], machine, inherited)


def check_all(specs: Iterable[EngineSpec], machine: Machine, inherited: Mapping[str, str]) -> None:
    """The same of engines that run side by side, and share the memory."""
    available = psutil.virtual_memory().available
    for spec in specs:
        check_rank(spec)
        check_model(spec)
        check_port(spec)
        check_compiler(spec, machine, environment(spec, inherited, machine))
        available -= check_memory(spec, machine, available)


def check_rank(spec: EngineSpec) -> None:
    """vLLM knows only certain ranks."""
    if spec.max_lora_rank not in RANKS:
        raise LaunchError(
            f"engine {spec.name}: max_lora_rank {spec.max_lora_rank} is none that vLLM has; "
            f"allowed: {', '.join(map(str, RANKS))}"
        )


def check_model(spec: EngineSpec) -> None:
    """A base that is a path must be a model; a hub id is vLLM's to find."""
    path = Path(spec.base)
    looks_like_path = spec.base.startswith(("/", ".", "~")) or spec.base.count("/") > 1
    if not path.exists():
        if looks_like_path:
            raise LaunchError(
                f"engine {spec.name}: there is no model at {spec.base}; give the folder that "
                "holds its config.json, or a model id of the Hugging Face hub"
            )
        return
    if not (path / "config.json").is_file() or not _weight_bytes(path):
        raise LaunchError(
            f"engine {spec.name}: {spec.base} is no model folder: it needs config.json and weights"
        )


def check_port(spec: EngineSpec) -> None:
    """Somebody else's server on the port would be taken for our engine."""
    family = socket.AF_INET6 if ":" in spec.host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((spec.host, spec.port))
        except OSError as error:
            raise LaunchError(
                f"engine {spec.name}: {spec.host}:{spec.port} cannot be used "
                f"({error.strerror}); stop what listens there, or choose another port"
            ) from error


def check_compiler(spec: EngineSpec, machine: Machine, env: Mapping[str, str]) -> None:
    """On a GPU Triton compiles its launchers with the system's compiler at first use; on a
    CPU so does Inductor, unless Dynamo is off, as ``launch`` leaves it."""
    if machine.device is Device.CPU and env.get("TORCHDYNAMO_DISABLE") == "1":
        return
    variable, names = ("CXX", _CXX) if machine.device is Device.CPU else ("CC", _CC)
    search = env.get("PATH", os.defpath)
    candidates = (env[variable],) if env.get(variable) else names
    if not any(shutil.which(compiler, path=search) for compiler in candidates):
        raise LaunchError(
            f"engine {spec.name}: no compiler ({', '.join(candidates)}) was found, and vLLM "
            "compiles kernels while it serves; on Debian: apt-get install build-essential"
        )


def check_memory(spec: EngineSpec, machine: Machine, available: int) -> int:
    """On a CPU weights and KV cache share memory with everything else: a full machine
    kills processes at random. On a GPU vLLM checks its own memory.

    The bytes it will take, as far as can be told.
    """
    if machine.device is not Device.CPU:
        return 0
    flags = {flag_name(name): value for name, value in spec.args.items()}
    cache = flags.get("kv-cache-memory-bytes") or kv_cache_bytes(
        model_config(spec.base), flags.get("max-model-len")
    )
    if not str(cache).isdecimal():  # "4G" and the like are vLLM's to read
        return 0
    needed = _RUNTIME_BYTES + 2 * _weight_bytes(Path(spec.base)) + int(str(cache))
    if needed > available:
        raise LaunchError(
            f"engine {spec.name} needs about {needed / _GIB:.1f} GiB of memory and "
            f"{available / _GIB:.1f} GiB are free; end other programs, take a smaller base, or "
            "lower kv-cache-memory-bytes in the engine's args"
        )
    return needed


def _weight_bytes(folder: Path) -> int:
    if not folder.is_dir():
        return 0
    for pattern in _WEIGHT_FILES:
        size = sum(file.stat().st_size for file in folder.glob(pattern))
        if size:
            return size
    return 0
