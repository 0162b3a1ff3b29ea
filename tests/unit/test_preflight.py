"""What is said before anything heavy starts."""

import json
import socket
from pathlib import Path

import psutil
import pytest

from serving.errors import LaunchError
from serving.launch import Device, EngineSpec, Machine
from serving.preflight import (
    check_all,
    check_compiler,
    check_memory,
    check_model,
    check_port,
    check_rank,
)

CPU = Machine(Device.CPU, cores=2)
GPU = Machine(Device.GPU, cores=2)


def spec(**changes: object) -> EngineSpec:
    fields = {"name": "clients-0", "base": "org/model", "served_name": "base"}
    return EngineSpec(**{**fields, **changes})


def test_a_port_in_use_is_named() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]

        with pytest.raises(LaunchError, match=f"127.0.0.1:{port} cannot be used"):
            check_port(spec(port=port))


def test_a_folder_that_is_not_there_is_named() -> None:
    with pytest.raises(LaunchError, match="no model at /nowhere/model"):
        check_model(spec(base="/nowhere/model"))


def test_a_folder_without_weights_is_no_model(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")

    with pytest.raises(LaunchError, match=r"config\.json and weights"):
        check_model(spec(base=str(tmp_path)))


def test_a_hub_id_is_left_to_vllm() -> None:
    check_model(spec(base="org/model"))


def test_a_rank_that_vllm_does_not_have_is_refused() -> None:
    with pytest.raises(LaunchError, match="allowed: 1, 8, 16"):
        check_rank(spec(max_lora_rank=24))


def test_too_little_memory_is_said_with_both_figures(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({}))
    (tmp_path / "model.safetensors").write_bytes(b"\0" * 1000)

    with pytest.raises(LaunchError, match=r"needs about 1\.\d GiB .* and 0\.5 GiB are free"):
        check_memory(spec(base=str(tmp_path)), CPU, available=2**29)
    needed = check_memory(spec(base=str(tmp_path)), CPU, available=2**34)
    assert 2**30 < needed < 2**31


def test_engines_side_by_side_share_the_memory(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({}))
    (tmp_path / "model.safetensors").write_bytes(b"\0")
    over_half = str(psutil.virtual_memory().available * 11 // 20)
    args = {"kv-cache-memory-bytes": over_half}
    specs = [
        spec(name=f"engine-{number}", base=str(tmp_path), args=args, port=0) for number in range(2)
    ]

    check_all(specs[:1], CPU, {})
    with pytest.raises(LaunchError, match="engine engine-1 needs about"):
        check_all(specs, CPU, {})


def test_a_missing_compiler_matters_only_where_something_is_compiled() -> None:
    nothing = {"PATH": "/nowhere"}

    check_compiler(spec(), CPU, {**nothing, "TORCHDYNAMO_DISABLE": "1"})
    for machine in (CPU, GPU):
        with pytest.raises(LaunchError, match="build-essential"):
            check_compiler(spec(), machine, nothing)
