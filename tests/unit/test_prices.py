import json
from pathlib import Path
from typing import Any

import pytest

from gateway.errors import CostMapInvalid
from gateway.log.cost import Price
from gateway.model import ModelOptions, Provider
from gateway.prices import Prices

ENTRY = {
    "input_cost_per_token": 1.5e-07,
    "output_cost_per_token": 6e-07,
    "cache_read_input_token_cost": 7.5e-08,
    "litellm_provider": "openai",
    "max_tokens": 16384,
    "mode": "chat",
}


def cost_map(folder: Path, **entries: Any) -> Path:
    file = folder / "prices.json"
    sample = {"sample_spec": {"input_cost_per_token": "what a token costs"}}
    file.write_text(json.dumps(sample | entries))
    return file


def per_million(price: Price | None) -> tuple[float, float, float | None] | None:
    if price is None:
        return None
    cached = price.cached_input
    rounded = [None if one is None else round(one, 9) for one in (price.input, price.output)]
    return rounded[0] or 0.0, rounded[1] or 0.0, None if cached is None else round(cached, 9)


def test_the_configured_price_counts_before_the_cost_map(tmp_path: Path) -> None:
    price = Price(input=1, output=2)
    models = {"helpdesk": ModelOptions(price=price), "other": ModelOptions()}

    prices = Prices(models, cost_map(tmp_path, base=ENTRY))

    assert prices.of("helpdesk", "base") == price
    assert per_million(prices.of("other", "base")) == (0.15, 0.6, 0.075)
    assert prices.of("other", "elsewhere") is None


@pytest.mark.parametrize("known_as", ["openai/gpt-5-mini", "gpt-5-mini", "mini"])
def test_a_model_is_found_with_and_without_its_provider_and_by_its_alias(
    tmp_path: Path, known_as: str
) -> None:
    models = {"mini": ModelOptions(provider=Provider(model="openai/gpt-5-mini"))}

    prices = Prices(models, cost_map(tmp_path, **{known_as: ENTRY}))

    assert per_million(prices.of("mini", "openai/gpt-5-mini")) == (0.15, 0.6, 0.075)


def test_a_model_without_a_price_for_what_it_writes_writes_for_nothing(tmp_path: Path) -> None:
    file = cost_map(
        tmp_path,
        embedder={"input_cost_per_token": 1e-08, "mode": "embedding"},
        painter={"output_cost_per_image": 0.04, "mode": "image_generation"},
    )

    prices = Prices({}, file)

    assert per_million(prices.of("e", "embedder")) == (0.01, 0.0, None)
    assert prices.of("p", "painter") is None


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (json.dumps({"good": ENTRY, "bad/one": {"input_cost_per_token": "a lot"}}), "'bad/one'"),
        (json.dumps({"bad/one": {"output_cost_per_token": -1}}), "'bad/one'"),
        (json.dumps({"bad/one": [1]}), "'bad/one'"),
        ("[]", "no JSON object of models"),
        ("{", "no JSON object of models"),
    ],
)
def test_a_cost_map_that_is_none_says_which_entry(tmp_path: Path, content: str, why: str) -> None:
    file = tmp_path / "prices.json"
    file.write_text(content)

    with pytest.raises(CostMapInvalid, match=why):
        Prices({}, file)


def test_a_cost_map_that_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(CostMapInvalid, match=r"nowhere\.json: No such file"):
        Prices({}, tmp_path / "nowhere.json")
