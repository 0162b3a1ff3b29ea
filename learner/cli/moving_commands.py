"""``ratchet log import``, ``export``, ``forget``, ``compact``: in and out of the log."""

import json
from pathlib import Path

import click

from learner.cli.options import Tenant, config_option, json_option


@click.command("import")
@config_option
@click.argument("shape", type=click.Choice(["bedrock", "openai", "nvidia", "litellm", "parquet"]))
@click.argument(
    "files",
    nargs=-1,
    required=True,
    type=click.Path(exists=True, path_type=Path),
    metavar="FILE...",
)
@click.option(
    "--tenant", type=Tenant(), default="default", show_default=True, help="Whose rows they become."
)
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


@click.command("export")
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
@click.option("--tenant", type=Tenant(), default="default", show_default=True, help="Whose rows.")
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


@click.command()
@config_option
@click.option("--user", help="An end user, as requests named them in `user`.")
@click.option("--subject", "subject_id", help="The same, as the log's subject_id names them.")
@click.option("--invocation", "invocation_id", help="A single call, by the id of its answer.")
@click.option("--tenant", type=Tenant(), default="default", show_default=True, help="Whose rows.")
@click.option("--reason", help="Kept with the erasure.")
@click.option("--now", "remove_now", is_flag=True, help="Remove it from every file at once, too.")
@json_option
def forget(config_path: Path, *, tenant: str, as_json: bool, **order: str | bool | None) -> None:
    """Erase everything of an end user, or one call, and print the receipt.

    No query sees it any more when this returns. It leaves the files within a day; rows of that
    user that began before now and turn up later are left out.
    """
    from pydantic import ValidationError

    from gateway.errors import InvalidRequest
    from learner.api.erasures import ErasureIn
    from learner.cli.forget import forget, print_receipt
    from learner.settings import load

    try:
        receipt = forget(load(config_path), ErasureIn.model_validate(order), tenant=tenant)
    except ValidationError as error:
        message = error.errors()[0]["msg"].removeprefix("Value error, ")
        raise click.UsageError(message) from error
    except InvalidRequest as error:
        raise click.UsageError(error.message) from error
    click.echo(json.dumps(receipt)) if as_json else print_receipt(receipt)


@click.command()
@config_option
def compact(config_path: Path) -> None:
    """Remove what was erased, or has expired, from every file, and shrink the log."""
    from learner.cli.forget import compact
    from learner.settings import load

    waiting = compact(load(config_path))
    click.echo(
        "the log is compacted" + (f"; {waiting} erasures wait for a turn's end" if waiting else "")
    )
