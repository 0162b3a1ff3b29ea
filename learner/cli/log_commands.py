"""``ratchet log``: its commands' options. What they do is in ``learner.cli.log``."""

import json
import sys
from pathlib import Path

import click

from learner.cli.moving_commands import compact, export_log, forget, import_log
from learner.cli.options import Tenant, config_option, json_option

style_option = click.option(
    "--format",
    "style",
    type=click.Choice(["table", "csv", "json", "parquet"]),
    default="table",
    show_default=True,
)
out_option = click.option(
    "-o",
    "out",
    type=click.Path(dir_okay=False, path_type=Path, allow_dash=True),
    help="A file; else standard output.",
)


@click.group()
def log() -> None:
    """Read the log, bring things in and out, and forget."""


for _command in (import_log, export_log, forget, compact):
    log.add_command(_command)


@log.command()
@config_option
@json_option
@click.option("-n", "count", type=click.IntRange(1, 10_000), default=20, show_default=True)
@click.option("--where", help="Which calls, as a filter in JSON.")
@click.option("--tenant", type=Tenant(), help="Only this tenant's.")
@click.option("-f", "--follow", "is_following", is_flag=True, help="Go on, as JSON lines.")
def tail(  # noqa: PLR0913 - its options
    config_path: Path,
    count: int,
    where: str | None,
    tenant: str | None,
    *,
    as_json: bool,
    is_following: bool,
) -> None:
    """The newest calls."""
    from learner.cli.log import ask, follow
    from learner.settings import load

    config = load(config_path)
    given = {"limit": str(count), "where": where, "tenant": tenant}
    parameters = {name: value for name, value in given.items() if value is not None}
    if not is_following:
        ask(config, "tail", parameters, "json" if as_json else "table", None)
        return
    try:
        follow(config, parameters)
    except KeyboardInterrupt:
        sys.exit(0)


@log.command()
@config_option
@click.argument("invocation")
def show(config_path: Path, invocation: str) -> None:
    """One invocation with its bodies and feedback, as JSON."""
    from learner.cli.log import invocation_with_feedback
    from learner.settings import load

    found = invocation_with_feedback(load(config_path), invocation)
    click.echo(json.dumps(found, indent=2, ensure_ascii=False, default=str))


@log.command()
@config_option
@click.argument("select")
@style_option
@json_option
@out_option
def sql(config_path: Path, select: str, style: str, *, as_json: bool, out: Path | None) -> None:
    """Answer one SELECT over the log."""
    from learner.cli import log as reading
    from learner.settings import load

    reading.select(load(config_path), select, "json" if as_json else style, out)


@log.command()
@config_option
@click.argument("name", required=False)
@click.option("--param", "given", multiple=True, metavar="KEY=VALUE", help="One of its parameters.")
@style_option
@json_option
@out_option
def query(  # noqa: PLR0913 - its options
    config_path: Path,
    name: str | None,
    given: tuple[str, ...],
    style: str,
    *,
    as_json: bool,
    out: Path | None,
) -> None:
    """Answer a question that has a name; without one, say which there are."""
    from learner.cli.log import ask, print_queries
    from learner.settings import load

    if name is None:
        print_queries()
        return
    pairs = [one.partition("=") for one in given]
    if wrong := [key for key, equals, _ in pairs if not equals]:
        raise click.UsageError(f"--param {wrong[0]}: write KEY=VALUE")
    parameters = {key: value for key, _, value in pairs}
    ask(load(config_path), name, parameters, "json" if as_json else style, out)
