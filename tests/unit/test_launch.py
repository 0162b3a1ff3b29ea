"""How a vLLM is started."""

import pytest

from serving.errors import LaunchError
from serving.launch import (
    Device,
    EngineSpec,
    Machine,
    argv,
    choose_device,
    environment,
    kv_cache_bytes,
)

CPU = Machine(Device.CPU, cores=4)
GPU = Machine(Device.GPU, cores=64)


def spec(**changes: object) -> EngineSpec:
    fields = {"name": "clients-0", "base": "org/model", "served_name": "base", "port": 9000}
    return EngineSpec(**{**fields, **changes})


def flags(words: tuple[str, ...]) -> dict[str, str]:
    """Each flag with the word that follows it."""
    following = (*words[1:], "")
    return {
        word: after for word, after in zip(words, following, strict=True) if word.startswith("--")
    }


def test_the_spec_becomes_vllms_flags() -> None:
    words = argv(spec(max_lora_rank=32), GPU)

    told = flags(words)
    assert words[1:3] == ("-m", "vllm.entrypoints.openai.api_server")
    assert told["--model"] == "org/model"
    assert told["--served-model-name"] == "base"
    assert (told["--host"], told["--port"]) == ("127.0.0.1", "9000")
    assert told["--max-lora-rank"] == "32"
    assert "--enable-lora" in words
    assert "--kv-cache-memory-bytes" not in words


def test_every_flag_of_vllm_is_reachable_and_wins_over_our_defaults() -> None:
    args = {
        "tool_call_parser": "hermes",
        "enable-auto-tool-choice": True,
        "enable-prefix-caching": False,
        "disable-uvicorn-access-log": None,
        "kv-cache-memory-bytes": "2G",
        "limit-mm-per-prompt": {"image": 1},
        "allowed-origins": ["a", "b"],
    }

    words = argv(spec(args=args), CPU)

    told = flags(words)
    assert told["--tool-call-parser"] == "hermes"
    assert "--enable-auto-tool-choice" in words
    assert "--no-enable-prefix-caching" in words
    assert "--disable-uvicorn-access-log" not in words
    assert told["--kv-cache-memory-bytes"] == "2G"
    assert told["--limit-mm-per-prompt"] == '{"image": 1}'
    assert words[words.index("--allowed-origins") + 1 :][:2] == ("a", "b")


@pytest.mark.parametrize("name", ["port", "max_loras", "served-model-name", "--model"])
def test_a_flag_that_has_a_field_is_refused_among_args(name: str) -> None:
    with pytest.raises(LaunchError, match="its own field"):
        spec(args={name: 1})


def test_there_are_never_fewer_known_adapters_than_adapters_in_a_batch() -> None:
    words = argv(spec(max_loras=8, max_cpu_loras=4), GPU)

    assert flags(words)["--max-cpu-loras"] == "8"


def test_adapters_come_from_our_agent_alone() -> None:
    inherited = {"VLLM_LORA_RESOLVER_CACHE_DIR": "/tmp", "PATH": "/bin"}

    told = environment(spec(), inherited, GPU)

    assert told["VLLM_PLUGINS"] == ""
    assert "VLLM_LORA_RESOLVER_CACHE_DIR" not in told
    assert told["PATH"] == "/bin"


def test_engines_on_a_cpu_share_its_cores() -> None:
    told = environment(spec(), {}, CPU)

    assert told["OMP_NUM_THREADS"] == "2"
    assert told["VLLM_CPU_OMP_THREADS_BIND"] == "nobind"
    assert told["VLLM_ENABLE_V1_MULTIPROCESSING"] == "0"


def test_an_engine_of_several_workers_keeps_vllms_own_processes() -> None:
    told = environment(spec(args={"tensor_parallel_size": 2}), {}, CPU)

    assert "VLLM_ENABLE_V1_MULTIPROCESSING" not in told


def test_the_operator_and_the_spec_know_better_than_our_defaults() -> None:
    told = environment(spec(env={"DO_NOT_TRACK": "0"}), {"OMP_NUM_THREADS": "7"}, CPU)

    assert told["OMP_NUM_THREADS"] == "7"
    assert told["DO_NOT_TRACK"] == "0"


def test_a_gpu_keeps_vllms_own_settings() -> None:
    told = environment(spec(), {}, GPU)

    assert "OMP_NUM_THREADS" not in told
    assert "TORCHDYNAMO_DISABLE" not in told


def test_the_device_is_what_the_installed_build_can_use() -> None:
    both = choose_device(cpu_build=False, gpu_build=True, gpu_present=True)
    no_gpu = choose_device(cpu_build=False, gpu_build=True, gpu_present=False)
    cpu_build = choose_device(cpu_build=True, gpu_build=False, gpu_present=True)

    assert (both, no_gpu, cpu_build) == (Device.GPU, Device.CPU, Device.CPU)


def test_without_vllm_the_next_command_is_told() -> None:
    with pytest.raises(LaunchError, match="pip install"):
        choose_device(cpu_build=False, gpu_build=False, gpu_present=False)


def test_the_kv_cache_grows_with_the_model_between_two_limits() -> None:
    tiny = {"num_hidden_layers": 4, "hidden_size": 192, "num_attention_heads": 4}
    large = {"num_hidden_layers": 36, "hidden_size": 2560, "num_attention_heads": 32}
    grouped = {**large, "num_key_value_heads": 8, "head_dim": 128}

    sizes = [kv_cache_bytes({**model}, 4096) // 2**20 for model in (tiny, grouped, large)]

    assert sizes == [256, 4096, 4096]
    assert kv_cache_bytes({}, None) == 256 * 2**20
    assert kv_cache_bytes(grouped, 1024) == 36 * 2 * 8 * 128 * 2 * 1024 * 8
