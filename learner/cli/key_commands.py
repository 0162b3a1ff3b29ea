"""``ratchet keys``: who may call the gateway, and what they may."""

from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from learner.cli.options import Tenant, config_option, json_option

if TYPE_CHECKING:
    from gateway.keys import Budget

WINDOWS = ("minute", "hour", "day", "month", "total")


class Span(click.ParamType[timedelta]):
    """How long: a number with a unit."""

    name = "duration"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> timedelta:
        """Of ``90s``, ``15m``, ``6h``, ``30d``; anything else is exit code 2."""
        from pydantic import TypeAdapter, ValidationError

        from learner.sections import Wait

        try:
            span: timedelta = TypeAdapter(Wait).validate_python(value)
        except (ValidationError, OverflowError):
            why = "a number with a unit, like 90s, 6h or 30d"
            self.fail(f"{value!r} is no span of time: {why}", param, ctx)
        return span


class PerWindow(click.ParamType["tuple[str, float]"]):
    """So much in each calendar window of UTC: ``day=5.00``."""

    def __init__(self, *, whole: bool) -> None:
        self.name = "window=tokens" if whole else "window=money"
        self._whole = whole

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, float]:
        """Anything else is exit code 2."""
        window, _, amount = str(value).partition("=")
        if window not in WINDOWS:
            names = ", ".join(WINDOWS)
            self.fail(f"{value!r} must begin with one of {names}, and a =", param, ctx)
        try:
            much = int(amount) if self._whole else float(amount)
        except ValueError:
            much = 0
        if not 0 < much < float("inf"):
            kind = "whole number" if self._whole else "number"
            self.fail(f"{amount!r} is no {kind} above zero", param, ctx)
        return window, much


@click.group()
def keys() -> None:
    """Who may call the gateway."""


@keys.command()
@config_option
@click.argument("name")
@click.option("--tenant", type=Tenant(), default="default", show_default=True)
@click.option(
    "--scope",
    "scopes",
    type=click.Choice(["inference", "train", "admin"]),
    multiple=True,
    default=["inference"],
    show_default=True,
    help="What it opens; may be repeated.",
)
@click.option(
    "--model", "models", multiple=True, help="A name it may put in `model`; may be repeated. [any]"
)
@click.option("--no-train", is_flag=True, help="Nothing is to be learnt from its calls.")
@click.option("--rpm", type=click.IntRange(1), help="Requests a minute.")
@click.option("--tpm", type=click.IntRange(1), help="Tokens a minute, prompt and completion.")
@click.option("--concurrency", type=click.IntRange(1), help="Requests under way at once.")
@click.option(
    "--budget",
    "money",
    type=PerWindow(whole=False),
    multiple=True,
    help="Money, in the currency of the prices: day=5.00. May be repeated.",
)
@click.option(
    "--token-budget",
    "tokens",
    type=PerWindow(whole=True),
    multiple=True,
    help="Tokens: month=1000000. May be repeated.",
)
@click.option("--expires", type=Span(), help="When it stops opening, from now: 30d.")
@json_option
def create(  # noqa: PLR0913 - its options
    config_path: Path,
    name: str,
    *,
    tenant: str,
    scopes: tuple[str, ...],
    models: tuple[str, ...],
    no_train: bool,
    rpm: int | None,
    tpm: int | None,
    concurrency: int | None,
    money: tuple[tuple[str, float], ...],
    tokens: tuple[tuple[str, float], ...],
    expires: timedelta | None,
    as_json: bool,
) -> None:
    """Make a key. It is shown once."""
    from gateway.keys import Limits, Rights, Scope
    from learner.cli import keys as act

    rights = Rights(
        scopes=frozenset(map(Scope, scopes)),
        models=frozenset(models) or None,
        train=not no_train,
        limits=Limits(rpm, tpm, concurrency),
        budgets=_budgets(dict(money), dict(tokens)),
    )
    act.create(config_path, name, tenant, rights, expires=expires, as_json=as_json)


@keys.command("list")
@config_option
@click.option("--tenant", type=Tenant(), help="Of one tenant only.")
@json_option
def list_keys(config_path: Path, *, tenant: str | None, as_json: bool) -> None:
    """The keys that are not revoked, and what each may; no secrets."""
    from learner.cli.keys import show_all

    show_all(config_path, tenant, as_json=as_json)


@keys.command()
@config_option
@click.argument("key_id")
@json_option
def show(config_path: Path, key_id: str, *, as_json: bool) -> None:
    """One key, revoked or not."""
    from learner.cli.keys import show_one

    show_one(config_path, key_id, as_json=as_json)


@keys.command()
@config_option
@click.argument("key_id")
def revoke(config_path: Path, key_id: str) -> None:
    """Make a key stop opening, within a blink."""
    from learner.cli import keys as act

    act.revoke(config_path, key_id)


@keys.command()
@config_option
@click.argument("key_id")
@click.option("--grace", type=Span(), help="How long the old secret opens, too: 1h. [not at all]")
@json_option
def rotate(config_path: Path, key_id: str, *, grace: timedelta | None, as_json: bool) -> None:
    """A new secret for the same key. It is shown once."""
    from learner.cli import keys as act

    act.rotate(config_path, key_id, grace or timedelta(0), as_json=as_json)


def _budgets(money: dict[str, float], tokens: dict[str, float]) -> "tuple[Budget, ...]":
    """One for each window that either names."""
    from gateway.keys import Budget, Window

    return tuple(
        Budget(
            Window(window),
            tokens=int(tokens[window]) if window in tokens else None,
            money=money.get(window),
        )
        for window in WINDOWS
        if window in money or window in tokens
    )
