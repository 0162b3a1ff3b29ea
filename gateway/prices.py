"""What tokens cost: the configuration's word first, then LiteLLM's cost map."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated

import msgspec
from msgspec import Meta, Raw

from gateway.errors import CostMapInvalid
from gateway.log.cost import MILLION, Price
from gateway.model import ModelOptions

_SAMPLE = "sample_spec"
"""The entry that only says what entries look like."""

Rate = Annotated[float, Meta(ge=0)]


class _Entry(msgspec.Struct):
    """What one token costs; images, seconds and characters are none of ours."""

    input_cost_per_token: Rate | None = None
    output_cost_per_token: Rate | None = None
    cache_read_input_token_cost: Rate | None = None

    def price(self) -> Price | None:
        """None for a model that is not paid by the token."""
        read, written, cached = (
            None if rate is None else rate * MILLION
            for rate in (
                self.input_cost_per_token,
                self.output_cost_per_token,
                self.cache_read_input_token_cost,
            )
        )
        if read is None:
            return None
        return Price(input=read, output=written or 0.0, cached_input=cached)


class Prices:
    """The price of each model.

    ``cost_map`` is a file like LiteLLM's ``model_prices_and_context_window.json``: an object of
    entries by model name. Raises CostMapInvalid for one that cannot be read.
    """

    def __init__(self, models: Mapping[str, ModelOptions], cost_map: Path | None) -> None:
        self._models = models
        self._map = {} if cost_map is None else _read(cost_map)
        self._found: dict[tuple[str, str], Price | None] = {}

    def of(self, alias: str, model: str) -> Price | None:
        """The price of an answer under ``alias``; None when nobody has set one.

        ``model`` is the base that answered, or litellm's name of a provider's model; an adapter
        costs what its base does. Both are names of the configuration: prices are remembered.
        """
        key = alias, model
        try:
            return self._found[key]
        except KeyError:
            found = self._found[key] = self._price(alias, model)
            return found

    def _price(self, alias: str, model: str) -> Price | None:
        options = self._models.get(alias)
        if options is not None and options.price is not None:
            return options.price
        names = (name for one in (model, alias) for name in _names(one))
        return next((self._map[name] for name in names if name in self._map), None)


def _names(model: str) -> Iterator[str]:
    """``openai/gpt-5-mini``, then without its provider: the map has some models only so."""
    yield model
    _, slash, bare = model.partition("/")
    if slash:
        yield bare


def _read(path: Path) -> dict[str, Price]:
    try:
        entries = msgspec.json.decode(path.read_bytes(), type=dict[str, Raw])
    except OSError as error:
        raise CostMapInvalid(f"the cost map {path}: {error.strerror or error}") from error
    except ValueError as error:
        raise CostMapInvalid(
            f"the cost map {path} is no JSON object of models: {error}; LiteLLM publishes one as "
            "model_prices_and_context_window.json"
        ) from error
    prices = {}
    decoder = msgspec.json.Decoder(_Entry)
    for name, entry in entries.items():
        if name == _SAMPLE:
            continue
        try:
            price = decoder.decode(entry).price()
        except ValueError as error:
            raise CostMapInvalid(f"the cost map {path}, entry {name!r}: {error}") from error
        if price is not None:
            prices[name] = price
    return prices
