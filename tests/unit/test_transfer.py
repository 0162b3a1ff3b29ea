import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from gateway.log.export import jsonl
from gateway.log.export.jsonl import Shape
from gateway.log.record import Erasure, new_id
from gateway.log.spool import SpoolWriter
from gateway.log.store import Store
from learner.cli.main import main
from learner.cli.transfer import Through, selection_of
from tests.factories import NOW

ANSWER = {"role": "assistant", "content": "it's here? \u00fc"}


@pytest.fixture
def home(tmp_path: Path) -> Path:
    (tmp_path / "ratchet.yaml").write_text("models:\n  - {alias: helpdesk, base: base}\n")
    return tmp_path


def ratchet(home: Path, *arguments: str) -> Result:
    config = ["--config", str(home / "ratchet.yaml")]
    return CliRunner().invoke(main, ["log", arguments[0], *config, *arguments[1:]])


def sft(path: Path, n: int = 3) -> list[Any]:
    rows = [{"messages": [{"role": "user", "content": f"q {i}"}, ANSWER]} for i in range(n)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return rows


def test_a_file_goes_in_and_comes_out(home: Path) -> None:
    rows = sft(home / "rows.jsonl")

    into = ratchet(home, "import", "openai", str(home / "rows.jsonl"), "--alias", "helpdesk")
    out = ratchet(home, "export", "sft", "-o", str(home / "out.jsonl"), "--alias", "helpdesk")

    assert (into.exit_code, out.exit_code) == (0, 0), into.output + out.output
    assert "3 invocations, 3 feedback" in into.stdout
    assert [json.loads(line) for line in (home / "out.jsonl").read_text().splitlines()] == rows


def test_machines_get_json_and_bad_rows_are_counted_not_fatal(home: Path) -> None:
    sft(home / "rows.jsonl", 2)
    with (home / "rows.jsonl").open("a") as file:
        file.write("{}\n")
    rejects = home / "bad.jsonl"

    done = ratchet(
        home,
        *("import", "openai", str(home / "rows.jsonl"), "--alias", "helpdesk"),
        *("--rejects", str(rejects), "--json"),
    )

    told = json.loads(done.stdout)
    assert done.exit_code == 0
    assert (told["rows"], told["rejected"], told["rejects"]) == (3, 1, str(rejects))
    assert sum(told["reasons"].values()) == 1
    assert json.loads(rejects.read_text())["line"] == 3


def test_standard_output_holds_the_rows_alone(home: Path) -> None:
    rows = sft(home / "rows.jsonl")
    ratchet(home, "import", "openai", str(home / "rows.jsonl"), "--alias", "helpdesk")

    done = ratchet(home, "export", "sft", "-o", "-")

    assert [json.loads(line) for line in done.stdout.splitlines()] == rows


def test_parquet_goes_out_and_comes_in_again(home: Path) -> None:
    sft(home / "rows.jsonl")
    ratchet(home, "import", "openai", str(home / "rows.jsonl"), "--alias", "helpdesk")

    out = ratchet(home, "export", "parquet", "-o", str(home / "frozen"))
    back = ratchet(home, "import", "parquet", str(home / "frozen"), "--json")

    assert (out.exit_code, back.exit_code) == (0, 0), out.output + back.output
    assert json.loads(back.stdout)["rows"] == 6
    with Store(home / "data" / "log.duckdb") as store:
        assert store.rows("SELECT count(*) AS n FROM invocations") == [{"n": 3}]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("import", "openai", "{home}/rows.jsonl"), "--alias"),
        (("import", "openai", "{home}/nope.jsonl", "--alias", "helpdesk"), "nope.jsonl"),
        (("import", "bedrock", "{home}/empty"), "no file named"),
        (("import", "parquet", "{home}/empty"), "no whole export"),
        (("import", "parquet", "{home}/empty", "--tenant", "other"), "its own tenant"),
        (("export", "sft", "-o", "{home}/nowhere/out.jsonl"), "cannot write"),
        (("export", "sft", "-o", "-", "--where", '{"tusk": "x"}'), "tusk"),
        (("export", "sft", "-o", "-", "--where", "{"), "--where"),
        (("export", "sft", "-o", "-", "--since", "soon"), "time"),
        (("export", "dpo", "-o", "-", "--answers"), "--answers"),
        (("export", "parquet", "-o", "-"), "folder"),
        (("export", "parquet", "-o", "{home}/empty"), "there already"),
    ],
)
def test_what_cannot_be_done_is_said_in_a_line(
    home: Path, arguments: tuple[str, ...], said: str
) -> None:
    sft(home / "rows.jsonl")
    (home / "empty").mkdir()

    done = ratchet(home, *(one.replace("{home}", str(home)) for one in arguments))

    assert done.exit_code != 0
    assert said in done.stderr
    assert "Traceback" not in done.output
    assert isinstance(done.exception, SystemExit)


def test_an_import_takes_what_else_waits_in_the_spool_before_it(home: Path) -> None:
    spool = SpoolWriter(home / "data" / "spool", "w0", reserve=0)
    spool.append(Erasure(id=new_id(), ts=NOW, tenant="default", subject_id="s"))
    spool.close()
    sft(home / "rows.jsonl")

    ratchet(home, "import", "openai", str(home / "rows.jsonl"), "--alias", "helpdesk")

    with Store(home / "data" / "log.duckdb") as store:
        assert store.rows("SELECT count(*) AS n FROM erasures") == [{"n": 1}]


class Desk:
    """Answers SELECTs without parameters, as the learner's socket does."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def batches(self, sql: str) -> Any:
        return self._store.select_batches(sql)


@pytest.fixture
def store(home: Path) -> Iterator[Store]:
    sft(home / "rows.jsonl")
    ratchet(home, "import", "openai", str(home / "rows.jsonl"), "--alias", "it's?")
    with Store(home / "data" / "log.duckdb") as store:
        yield store


def test_through_a_running_learner_the_same_rows_come_out(store: Store) -> None:
    options = {"alias": "it's?", "status": None, "time": {"after": "1d"}}
    where = '{"time": {"before": "2999-01-01"}, "error_type": [null, "x"]}'
    given = {name: value for name, value in options.items() if value}
    selection = selection_of("default", where, given, NOW)

    direct = list(jsonl.lines(store, selection, Shape.SFT))
    through = list(jsonl.lines(Through(Desk(store)), selection, Shape.SFT))  # type: ignore[arg-type]

    assert len(direct) == 3
    assert through == direct


@pytest.mark.parametrize("command", ["import", "export", "forget", "tail"])
@pytest.mark.parametrize("tenant", ["", "a b", "m\u00fcller", "a\nb"])
def test_a_tenant_that_no_key_can_have_is_refused(home: Path, command: str, tenant: str) -> None:
    sft(home / "rows.jsonl")
    arguments = {
        "import": ("import", "openai", str(home / "rows.jsonl"), "--alias", "helpdesk"),
        "export": ("export", "sft", "-o", "-"),
        "forget": ("forget", "--user", "bob"),
        "tail": ("tail",),
    }

    refused = ratchet(home, *arguments[command], "--tenant", tenant)

    assert refused.exit_code == 2
    assert "a tenant's name is 1 to 128 letters" in refused.stderr


def test_what_is_wrong_with_a_selection_is_said_of_its_option(home: Path) -> None:
    since = ratchet(home, "export", "sft", "-o", "-", "--since", "yesterday")
    where = ratchet(home, "export", "sft", "-o", "-", "--where", "{")

    assert since.stderr.startswith("ratchet: --since: must be a time")
    assert where.stderr.startswith("ratchet: --where: Invalid JSON")


def test_a_log_that_cannot_be_there_is_one_line(home: Path) -> None:
    (home / "file").write_text("")
    config = (home / "ratchet.yaml").read_text()
    (home / "ratchet.yaml").write_text(config + "log: {url: ../file/log.duckdb}\n")

    refused = ratchet(home, "sql", "select 1")

    assert refused.exit_code == 1
    assert refused.stderr.startswith("ratchet: the log cannot be opened: ")
