from datetime import timedelta
from pathlib import Path
from textwrap import dedent

import pytest

from gateway.model import ModelOptions, Provider, PythonGuard
from gateway.settings import GatewaySettings
from learner.cli.house import gateway_environment
from learner.errors import ConfigError
from learner.policy import engine_specs
from learner.settings import RatchetConfig, load

GOOD = """
models:
  - {alias: helpdesk, base: Qwen/Qwen3-4B}
policies:
  - alias: helpdesk
    reward: {type: tool_call}
    when: {every: 6h, new_samples: 200}
"""


def written(folder: Path, text: str) -> Path:
    path = folder / "ratchet.yaml"
    path.write_text(dedent(text))
    return path


def test_a_short_file_is_enough(tmp_path: Path) -> None:
    config = load(written(tmp_path, GOOD))

    assert config.policies[0].when.every == timedelta(hours=6)
    assert config.data == tmp_path / "data"
    assert config.gateway.port == 8000


def test_paths_are_relative_to_the_file(tmp_path: Path) -> None:
    (tmp_path / "base").mkdir()
    text = GOOD.replace("Qwen/Qwen3-4B", "base") + "    held_out: heldout.jsonl\n"

    config = load(written(tmp_path, text))

    assert config.models[0].base == str(tmp_path / "base")
    assert config.policies[0].held_out == tmp_path / "heldout.jsonl"


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("helpdesk, base", "'help desk', base", "models.0.alias"),
        ("every: 6h", "every: soon", "policies.0.when.every: must be a number with a unit"),
        ("every: 6h, new_samples: 200", "", "policies.0.when: give every, new_samples or both"),
        ("type: tool_call", "type: magic", "policies.0.reward: reward.type is 'magic'"),
        (
            "reward:",
            "rewards:",
            "policies.0.rewards: no such setting; allowed are alias, tenant, where",
        ),
        ("- alias: helpdesk", "- alias: other", "a policy names alias 'other'"),
        ("models:", "gateway: {port: 99999}\nmodels:", "gateway.port"),
        ("models:", "gateway: {prot: 1}\nmodels:", "gateway.prot: no such setting; allowed"),
        ("models:", "- models:", "not YAML"),
        (
            "models:",
            "log: {retention: {rows: 90}}\nmodels:",
            "log.retention.rows: must be a number wi",
        ),
        (
            "models:",
            "log: {retention: {rows: 0d}}\nmodels:",
            "log.retention.rows: must be longer",
        ),
        ("models:", "log:\nmodels:", "log: must be a section of settings"),
        ("models:", "log: {best_effort: chat}\nmodels:", "log.best_effort: must be a list"),
        ("models:", "log: {url: 'postgres://x/y'}\nmodels:", "log.url: must be a file, ducklake:"),
        (
            "models:",
            "log: {url: 'ducklake:sqlite:'}\nmodels:",
            "log.url: must be a file, ducklake:",
        ),
        ("models:", "log: {url: ''}\nmodels:", "log.url: must be a file, ducklake:"),
        (
            "models:",
            "metrics: {comment: {type: float}}\nmodels:",
            "metrics: comment means something",
        ),
        (
            "models:",
            "metrics: {good: {type: float, optimise: max}}\nmodels:",
            "metrics.good.optimise: no such setting; allowed are type, level, optimize",
        ),
        (
            "base: Qwen/Qwen3-4B",
            "base: Qwen/Qwen3-4B, price: {in: 1, output: 1}",
            "models.0.price.in: no such setting; allowed are input, output, cached_input",
        ),
        ("models:", "serving: {port: 8000}\nmodels:", "must differ"),
        ("models:", "serving: {port: 8190, replicas: 11}\nmodels:", "8190 to 8200, 8200 to 8200"),
        ("models:", "gateway: {limits: 'http://x'}\nmodels:", "gateway.limits: "),
        ("models:", "gateway: {idle_timeout: 0s}\nmodels:", "gateway.idle_timeout: "),
        ("models:", "gateway: {capacity: 0}\nmodels:", "gateway.capacity: "),
        ("models:", "gateway: {cost_map: no.json}\nmodels:", "gateway.cost_map: there is no file"),
        (", base: Qwen/Qwen3-4B", "", "models.0: give either base or provider"),
        (
            "base: Qwen/Qwen3-4B",
            "base: b, provider: {model: openai/x}",
            "models.0: give either base or provider",
        ),
        (
            "base: Qwen/Qwen3-4B",
            "provider: {model: x}",
            r"models.0.provider.model: must match ^[^/\s]+/\S+$ (litellm's name for it",
        ),
        (
            "base: Qwen/Qwen3-4B",
            "base: b, guards: {before: [{name: g, url: 'http://g'}]}",
            "models.0.guards.before.0: type is missing",
        ),
        (
            "base: Qwen/Qwen3-4B",
            "base: b, guards: {before: [{type: regex, name: g}]}",
            "models.0.guards.before.0: type must be one of http, python; it is regex",
        ),
        (
            "models:",
            "gateway: {cors: {origins: ['https://app.example.com/']}}\nmodels:",
            "gateway.cors.origins.0: must match",
        ),
        (
            "models:",
            "gateway: {telemetry: {endpoint: 'collector:4318'}}\nmodels:",
            "gateway.telemetry.endpoint: must match",
        ),
        (
            "models:",
            "gateway: {cost_map: ratchet.yaml}\nmodels:",
            "gateway.cost_map: the cost map",
        ),
        (
            "base: Qwen/Qwen3-4B",
            "provider: {model: openai/x}",
            "a policy cannot teach 'helpdesk': a provider answers for it",
        ),
        (
            "base: Qwen/Qwen3-4B",
            "base: Qwen/Qwen3-4B, arms: [{to: helpdesk@v2, weight: 1.5}]",
            "models.0.arms.0.weight: ",
        ),
        (
            "base: Qwen/Qwen3-4B",
            "base: Qwen/Qwen3-4B, arms: [{to: helpdesk@v2, weight: 0.5, name: pinned}]",
            "models.0: arms need names of their own",
        ),
        (
            "base: Qwen/Qwen3-4B",
            "base: Qwen/Qwen3-4B, arms: [{to: helpdesk, weight: 0.5}]",
            "models.0: helpdesk is its own arm or shadow",
        ),
        (
            "base: Qwen/Qwen3-4B",
            "base: Qwen/Qwen3-4B, fallbacks: [helpdesk@v1, helpdesc]",
            "models.0.fallbacks.1: nothing is called 'helpdesc'",
        ),
        (
            "base: Qwen/Qwen3-4B",
            "base: Qwen/Qwen3-4B, shadow: {to: other@v1}",
            "models.0.shadow.to: nothing is called 'other@v1'",
        ),
        (
            "base: Qwen/Qwen3-4B}",
            (
                "base: Qwen/Qwen3-4B, fallbacks: [b]}\n"
                "  - {alias: b, provider: {model: openai/x}, fallbacks: [helpdesk]}"
            ),
            "models.0.fallbacks: they lead back to themselves: helpdesk -> b -> helpdesk",
        ),
        (
            "base: Qwen/Qwen3-4B",
            "base: Qwen/Qwen3-4B, guards: {after: [{type: python, name: g, file: g.py}]}",
            "models.0.guards.after.0.file: there is no file",
        ),
        ("reward:", "training: {lora: {r: 64}}\n    reward:", "raise max_lora_rank"),
        ("models:", "models:\n  - {alias: b, base: other/Qwen3-4B}", "two bases are called"),
    ],
)
def test_a_mistake_is_one_line_that_says_where(
    tmp_path: Path, old: str, new: str, said: str
) -> None:
    path = written(tmp_path, GOOD.replace(old, new, 1))

    with pytest.raises(ConfigError) as caught:
        load(path)

    message = str(caught.value)
    assert said in message
    assert "\n" not in message
    assert str(path) in message


ROUTED = """
gateway: {limits: limits.db, cost_map: prices.json, idle_timeout: 2m, max_body: 1MB, capacity: 9}
serving: {replicas: 2, env: {CUDA_VISIBLE_DEVICES: "{engine}"}}
models:
  - alias: helpdesk
    base: base
    arms: [{to: helpdesk@v2, weight: 0.1}]
    shadow: {to: other}
    fallbacks: [base, "ft:base:ratchet:helpdesk:0123456789ab", mini]
    guards: {before: [{type: python, name: mine, file: guard.py}]}
  - {alias: other, base: org/Model}
  - {alias: mini, provider: {model: openai/gpt-5-mini}}
"""


@pytest.fixture
def routed(tmp_path: Path) -> RatchetConfig:
    (tmp_path / "base").mkdir()
    (tmp_path / "guard.py").touch()
    (tmp_path / "prices.json").write_text("{}")
    return load(written(tmp_path, ROUTED))


def test_a_models_options_may_name_whatever_a_client_may(
    routed: RatchetConfig, tmp_path: Path
) -> None:
    helpdesk, other, mini = routed.models

    [guard] = helpdesk.guards.before
    assert isinstance(guard, PythonGuard)
    assert guard.file == tmp_path / "guard.py"
    assert helpdesk.fallbacks[0] == "base"
    assert other.options == ModelOptions()
    assert mini.options == ModelOptions(provider=Provider(model="openai/gpt-5-mini"))
    assert routed.bases == (str(tmp_path / "base"), "org/Model")


def test_replicas_have_names_ports_and_devices_of_their_own(routed: RatchetConfig) -> None:
    specs = engine_specs(routed)

    assert [(spec.name, spec.port, spec.env["CUDA_VISIBLE_DEVICES"]) for spec in specs] == [
        ("engine-base-0", 8100, "0"),
        ("engine-base-1", 8101, "1"),
        ("engine-Model-0", 8102, "2"),
        ("engine-Model-1", 8103, "3"),
    ]
    assert [spec.served_name for spec in specs] == ["base", "base", "org/Model", "org/Model"]


def test_a_gateway_worker_is_told_all_that_the_file_says(
    routed: RatchetConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in gateway_environment(routed).items():
        monkeypatch.setenv(name, value)

    told = GatewaySettings()

    assert told.models == {
        model.alias: model.options for model in routed.models if model.alias != "other"
    }
    assert told.limits == str(tmp_path / "data" / "limits.db")
    assert told.cost_map == tmp_path / "prices.json"
    assert (told.idle_timeout_s, told.max_body_bytes, told.capacity) == (120, 1 << 20, 9)
    assert told.run == tmp_path / "data" / "run"


def test_the_password_of_redis_comes_from_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REDIS_PASSWORD", "s3cret")
    text = "gateway: {limits: 'redis://:$REDIS_PASSWORD@cache:6379/1'}\n" + GOOD

    config = load(written(tmp_path, text))

    assert config.limits == "redis://:s3cret@cache:6379/1"


def test_a_gateway_for_providers_alone_needs_no_engine(tmp_path: Path) -> None:
    text = "models:\n  - {alias: mini, provider: {model: openai/gpt-5-mini}}\n"

    config = load(written(tmp_path, text))

    assert (config.bases, engine_specs(config)) == ((), ())


def test_a_missing_file_says_how_to_name_another(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--config"):
        load(tmp_path / "none.yaml")


def test_a_file_that_is_no_text_is_no_yaml(tmp_path: Path) -> None:
    path = tmp_path / "ratchet.yaml"
    path.write_bytes(b"\xff\xfe")

    with pytest.raises(ConfigError, match="not YAML"):
        load(path)
