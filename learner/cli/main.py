"""The tree of commands."""

import json
import sys
from pathlib import Path

import click

config_option = click.option(
    "--config",
    "config_path",
    type=click.Path(dir_okay=False, path_type=Path),
    default=Path("ratchet.yaml"),
    show_default=True,
    envvar="RATCHET_CONFIG",
    help="The configuration file.",
)
json_option = click.option("--json", "as_json", is_flag=True, help="JSON for machines.")


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


@main.group()
def log() -> None:
    """Read the log."""


@log.command()
@config_option
@json_option
@click.option("-n", "count", type=click.IntRange(1, 10_000), default=20, show_default=True)
def tail(config_path: Path, count: int, *, as_json: bool) -> None:
    """The newest invocations."""
    from learner.cli.log import TAIL, print_table, select
    from learner.settings import load

    print_table(select(load(config_path), TAIL.format(count=count)), "json" if as_json else "table")


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
@click.argument("query")
@click.option(
    "--format",
    "style",
    type=click.Choice(["table", "csv", "json"]),
    default="table",
    show_default=True,
)
@json_option
def sql(config_path: Path, query: str, style: str, *, as_json: bool) -> None:
    """Answer one SELECT over the log."""
    from learner.cli.log import print_table, select
    from learner.settings import load

    print_table(select(load(config_path), query), "json" if as_json else style)


@log.command("import")
@config_option
@click.argument("shape", type=click.Choice(["bedrock", "openai", "nvidia", "litellm", "parquet"]))
@click.argument(
    "files",
    nargs=-1,
    required=True,
    type=click.Path(exists=True, path_type=Path),
    metavar="FILE...",
)
@click.option("--tenant", default="default", show_default=True, help="Whose rows they become.")
@click.option("--alias", help="What request_model becomes; else what the row says.")
@click.option("--task", help="What task becomes; else what the row says.")
@click.option(
    "--rejects",
    type=click.Path(dir_okay=False, path_type=Path),
    default=Path("rejects.jsonl"),
    show_default=True,
    help="Where rows go that cannot be imported, each with its reason.",
)
@click.option("--no-train", is_flag=True, help="Nothing is to be learnt from these rows.")
@json_option
def import_log(  # noqa: PLR0913 - its options
    config_path: Path,
    shape: str,
    files: tuple[Path, ...],
    *,
    tenant: str,
    alias: str | None,
    task: str | None,
    rejects: Path,
    no_train: bool,
    as_json: bool,
) -> None:
    """Take other systems' logs, or an export of ours, into the log.

    A FILE may be gzip, and a folder stands for the files in it. Importing the same rows again
    adds nothing.
    """
    from learner.cli.transfer import Into, import_files, print_import
    from learner.settings import load

    if shape == "openai" and alias is None:
        raise click.UsageError("OpenAI's files do not say which model they are for; add --alias")
    if shape == "parquet" and (alias or task or tenant != "default"):
        raise click.UsageError("an export of ours keeps its own tenant, alias and task")
    into = Into(tenant=tenant, alias=alias, task=task, train_ok=not no_train)
    told = import_files(load(config_path), shape, files, into, rejects)
    click.echo(json.dumps(told)) if as_json else print_import(told)


@log.command("export")
@config_option
@click.argument("shape", type=click.Choice(["sft", "dpo", "rft", "nvidia", "parquet"]))
@click.option(
    "-o",
    "out",
    type=click.Path(path_type=Path, allow_dash=True),
    required=True,
    help="A file, - for standard output; for parquet a new folder.",
)
@click.option("--where", help="Which rows, as a filter in JSON.")
@click.option("--task", help="Only this task's rows.")
@click.option("--alias", help="Only rows of this model name.")
@click.option("--since", help="Only rows from then on: 2026-11-20T14:00:00Z, or 7d ago.")
@click.option("--until", help="Only rows before then.")
@click.option("--tenant", default="default", show_default=True, help="Whose rows.")
@click.option("--answers", is_flag=True, help="sft: what was answered, where nothing better is.")
def export_log(  # noqa: PLR0913 - its options
    config_path: Path,
    shape: str,
    out: Path,
    *,
    where: str | None,
    task: str | None,
    alias: str | None,
    since: str | None,
    until: str | None,
    tenant: str,
    answers: bool,
) -> None:
    """Write rows of the log as files to train on, or as Parquet.

    sft needs demonstrations, dpo preferences, rft references or demonstrations; nvidia takes
    every answered call. Rows that may not be learnt from only go into parquet.
    """
    from datetime import UTC, datetime

    from learner.cli.transfer import export, selection_of
    from learner.settings import load

    if answers and shape != "sft":
        raise click.UsageError("--answers goes with sft")
    time = {name: value for name, value in (("after", since), ("before", until)) if value}
    options = {"task": task, "alias": alias, "time": time}
    given = {name: value for name, value in options.items() if value}
    selection = selection_of(tenant, where, given, datetime.now(UTC))
    written = export(
        load(config_path), shape, selection, None if str(out) == "-" else out, answers=answers
    )
    click.echo(", ".join(f"{n:,} {what}" for what, n in written.items()) + f" in {out}", err=True)


@log.command()
@config_option
@click.option("--user", help="An end user, as requests named them in `user`.")
@click.option("--subject", "subject_id", help="The same, as the log's subject_id names them.")
@click.option("--invocation", "invocation_id", help="A single call, by the id of its answer.")
@click.option("--tenant", default="default", show_default=True, help="Whose rows.")
@click.option("--reason", help="Kept with the erasure.")
@click.option("--now", "remove_now", is_flag=True, help="Remove it from every file at once, too.")
@json_option
def forget(config_path: Path, *, tenant: str, as_json: bool, **order: str | bool | None) -> None:
    """Erase everything of an end user, or one call, and print the receipt.

    No query sees it any more when this returns. It leaves the files within a day; rows of that
    user that began before now and turn up later are left out.
    """
    from pydantic import ValidationError

    from learner.api.erasures import ErasureIn
    from learner.cli.forget import forget, print_receipt
    from learner.settings import load

    try:
        asked = ErasureIn.model_validate(order)
    except ValidationError as error:
        message = error.errors()[0]["msg"].removeprefix("Value error, ")
        raise click.UsageError(message) from error
    receipt = forget(load(config_path), asked, tenant=tenant)
    click.echo(json.dumps(receipt)) if as_json else print_receipt(receipt)


@log.command()
@config_option
def compact(config_path: Path) -> None:
    """Remove what was erased, or has expired, from every file, and shrink the log."""
    from learner.cli.forget import compact
    from learner.settings import load

    waiting = compact(load(config_path))
    click.echo(
        "the log is compacted" + (f"; {waiting} erasures wait for a turn's end" if waiting else "")
    )


@main.group()
def keys() -> None:
    """Who may call the gateway."""


@keys.command("create")
@config_option
@click.argument("name")
@click.option("--tenant", default="default", show_default=True)
@json_option
def create_key(config_path: Path, name: str, tenant: str, *, as_json: bool) -> None:
    """Make a key. It is shown once."""
    from learner.cli.keys import create

    create(config_path, name, tenant, as_json=as_json)


@keys.command("list")
@config_option
@json_option
def list_keys(config_path: Path, *, as_json: bool) -> None:
    """The keys that open, without their secrets."""
    from learner.cli.keys import show_all

    show_all(config_path, as_json=as_json)


@keys.command("revoke")
@config_option
@click.argument("key_id")
def revoke_key(config_path: Path, key_id: str) -> None:
    """Make a key stop opening, within seconds."""
    from learner.cli.keys import revoke

    revoke(config_path, key_id)


@main.command()
@config_option
@json_option
@click.argument("turn", required=False)
def turns(config_path: Path, turn: str | None, *, as_json: bool) -> None:
    """What was learnt: the newest turns, or the history of one."""
    from learner.cli.turns import show_turns

    show_turns(config_path, turn, as_json=as_json)


@main.command()
@json_option
def doctor(*, as_json: bool) -> None:
    """Say what is missing on this machine, and how to get it."""
    from learner.cli.doctor import examine

    sys.exit(examine(as_json=as_json))
