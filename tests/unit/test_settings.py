from datetime import timedelta
from pathlib import Path
from textwrap import dedent

import pytest

from learner.errors import ConfigError
from learner.settings import load

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


def test_a_missing_file_says_how_to_name_another(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--config"):
        load(tmp_path / "none.yaml")


def test_a_file_that_is_no_text_is_no_yaml(tmp_path: Path) -> None:
    path = tmp_path / "ratchet.yaml"
    path.write_bytes(b"\xff\xfe")

    with pytest.raises(ConfigError, match="not YAML"):
        load(path)
