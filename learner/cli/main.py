"""The tree of commands."""

import sys
from pathlib import Path

import click

from learner.cli.key_commands import keys
from learner.cli.log_commands import log
from learner.cli.options import Tenant, config_option, json_option


class _Group(click.Group):
    """Turns our own errors into one line and exit code 1."""

    def invoke(self, ctx: click.Context) -> object:
        from gateway.errors import ImportFailed, KeyUnavailable, SpoolError, StoreError
        from learner.errors import LearnerError
        from serving.errors import ServingError

        try:
            return super().invoke(ctx)
        except (
            LearnerError,
            ServingError,
            StoreError,
            SpoolError,
            ImportFailed,
            KeyUnavailable,
        ) as error:
            click.echo(f"ratchet: {error}", err=True)
            sys.exit(1)


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="ratchet")
def main() -> None:
    """An OpenAI-compatible gateway that learns from its own traffic."""


@main.command()
@config_option
def up(config_path: Path) -> None:
    """Run everything on this machine, until Ctrl-C."""
    from learner.cli.up import run_until_stopped

    run_until_stopped(config_path)


@main.command()
@click.option("--data", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--base", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option(
    "--home",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("data/demo"),
    show_default=True,
    help="Where the demo keeps its things; each run starts with an empty log.",
)
@click.option("--demonstrations", type=click.IntRange(1), default=100, show_default=True)
@click.option("--port", type=click.IntRange(1, 65535), default=8000, show_default=True)
@click.option("--keep", is_flag=True, help="Leave everything running at the end, until Ctrl-C.")
@click.option(
    "--json", "json_file", type=click.Path(dir_okay=False, path_type=Path), help="Write figures."
)
def demo(  # noqa: PLR0913 - its options
    data: Path | None,
    base: Path | None,
    home: Path,
    demonstrations: int,
    port: int,
    *,
    keep: bool,
    json_file: Path | None,
) -> None:
    """Watch a model get better from its own traffic.

    Without --data and --base it builds its own world: a help desk and a tiny model for it.
    --data holds traffic.jsonl, heldout.jsonl and tools.json; --base a model in Hugging Face's
    layout.
    """
    from learner.cli.demo.story import Options, tell

    if (data is None) != (base is None):
        raise click.UsageError("--data and --base go together")
    options = Options(
        data=data, base=base, home=home, demonstrations=demonstrations, port=port, keep=keep
    )
    tell(options, json_file)


@main.group()
def config() -> None:
    """Look at ratchet.yaml."""


@config.command()
@config_option
def check(config_path: Path) -> None:
    """Validate the configuration, and say where it is wrong."""
    from learner.settings import load

    loaded = load(config_path)
    click.echo(
        f"{config_path}: good; {len(loaded.models)} models, {len(loaded.policies)} policies, "
        f"data in {loaded.data}"
    )


@main.command()
@config_option
@json_option
@click.argument("turn", required=False)
def turns(config_path: Path, turn: str | None, *, as_json: bool) -> None:
    """What was learnt: the newest turns, or the history of one."""
    from learner.cli.turns import show_turns

    show_turns(config_path, turn, as_json=as_json)


@main.command()
@config_option
@click.option(
    "--by", default="model", show_default=True, help="What is counted apart: key,model,adapter,arm"
)
@click.option("--since", default="30d", show_default=True, help="From then on, or this long ago.")
@click.option("--tenant", type=Tenant(), help="Only this tenant's.")
@json_option
def usage(config_path: Path, by: str, since: str, tenant: str | None, *, as_json: bool) -> None:
    """Who used how much: calls, tokens and cost, of all tenants."""
    from learner.cli.usage import show

    names = [one.strip() for one in by.split(",")]
    show(config_path, names, since, tenant, as_objects=as_json)


@main.command()
@json_option
def doctor(*, as_json: bool) -> None:
    """Say what is missing on this machine, and how to get it."""
    from learner.cli.doctor import examine

    sys.exit(examine(as_json=as_json))


main.add_command(keys)
main.add_command(log)
