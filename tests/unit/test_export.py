import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import UUID

import msgspec
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.errors import ImportFailed
from gateway.log.export import jsonl, parquet
from gateway.log.export.file import write_lines
from gateway.log.export.jsonl import Shape
from gateway.log.export.selection import Selection
from gateway.log.filter import Condition, Filter
from gateway.log.import_.intake import canonical
from gateway.log.import_.run import Import, Rejects, Spooled, shape_of
from gateway.log.ingest import Ingester
from gateway.log.record import Edit, Feedback, Record, Verdict, new_id
from gateway.log.spool import SpoolWriter
from gateway.log.store import Store
from tests.factories import NOW, body, demonstration, intake, invocation

ALL = Selection("default", Condition.all([]))
ANSWER = {"role": "assistant", "content": "hello"}
PROMPT = [{"role": "user", "content": "hi"}]


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store(tmp_path / "log.duckdb") as store:
        yield store


def put(store: Store, spool: Path, *records: Record) -> None:
    """Bring records into the log by its only way in."""
    writer = SpoolWriter(spool, "w0", reserve=0)
    for record in records:
        writer.append(record)
    writer.close()
    ingest(store, spool)


def ingest(store: Store, spool: Path) -> None:
    ingester = Ingester(store, spool, now=lambda: NOW)
    while ingester.run_once():
        pass


def bring(store: Store, name: str, path: Path, **into: Any) -> None:
    """Import a file."""
    spool = SpoolWriter(path.with_name("spool"), "import", reserve=0)
    with Rejects(path.with_name("rejects.jsonl")) as rejects:
        sink = Spooled(spool, lambda _, refusal: pytest.fail(str(refusal)))
        Import(shape_of(name), intake(name, **into), sink, rejects, lambda _: None).take(path)
    spool.close()
    assert not path.with_name("rejects.jsonl").exists()
    ingest(store, path.with_name("spool"))


def out(store: Store, shape: Shape, selection: Selection = ALL, **how: Any) -> list[Any]:
    return [json.loads(line) for line in jsonl.lines(store, selection, shape, **how)]


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)
MESSAGE = st.fixed_dictionaries(
    {"role": st.sampled_from(["system", "user", "tool"]), "content": st.text()},
    optional={"name": st.text(), "weight": st.integers(0, 1)},
)
CALLS = st.fixed_dictionaries(
    {"role": st.just("assistant"), "content": st.text() | st.none()},
    optional={"tool_calls": st.lists(VALUES, max_size=2), "weight": st.integers(0, 1)},
)
EXTRAS = st.dictionaries(
    st.text().filter(
        lambda key: (
            key not in {"messages", "input", "tools", "parallel_tool_calls", "reference_answer"}
        )
    ),
    VALUES,
    max_size=3,
)
PROMPTED = st.fixed_dictionaries(
    {
        "messages": st.lists(MESSAGE | CALLS, max_size=3).flatmap(
            lambda before: MESSAGE.map(lambda last: [*before, last])
        )
    },
    optional={"tools": st.lists(VALUES, max_size=2), "parallel_tool_calls": st.booleans()},
)
SFT = st.builds(
    lambda prompt, answer, extras: extras | prompt | {"messages": [*prompt["messages"], answer]},
    PROMPTED,
    CALLS,
    EXTRAS,
)
DPO = st.fixed_dictionaries(
    {
        "input": PROMPTED,
        "preferred_output": st.lists(CALLS, min_size=1, max_size=2),
        "non_preferred_output": st.lists(CALLS, min_size=1, max_size=2),
    }
)
RFT = st.builds(
    lambda prompt, answer, extras: extras | prompt | answer,
    PROMPTED,
    st.fixed_dictionaries({}, optional={"reference_answer": VALUES}),
    EXTRAS,
)
NVIDIA = st.fixed_dictionaries(
    {
        "timestamp": st.integers(0, 4_000_000_000)
        | st.floats(0, 4_000_000_000)
        | st.sampled_from(["2026-04-17T14:21:50Z", "2026-04-17 14:21:50.123+02:00"]),
        "workload_id": st.text(min_size=1),
        "client_id": st.text(),
        "request": PROMPTED,
        "response": st.dictionaries(st.text(), VALUES, max_size=3).map(
            lambda response: response | {"choices": [{"message": ANSWER}]}
        ),
    }
)


@pytest.mark.parametrize(
    ("shape", "name", "rows"),
    [
        (Shape.SFT, "openai", SFT),
        (Shape.DPO, "openai", DPO),
        (Shape.RFT, "openai", RFT),
        (Shape.NVIDIA, "nvidia", NVIDIA),
    ],
)
def test_a_file_that_is_imported_comes_out_as_it_was(
    shape: Shape, name: str, rows: Any, tmp_path_factory: pytest.TempPathFactory
) -> None:
    @settings(max_examples=5, deadline=None, suppress_health_check=[HealthCheck.too_slow])
    @given(st.lists(rows, min_size=20, max_size=40, unique_by=canonical))
    def there_and_back(before: list[Any]) -> None:
        folder = tmp_path_factory.mktemp("there-and-back")
        path = folder / "rows.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in before), encoding="utf-8")
        with Store(folder / "log.duckdb") as store:
            bring(store, name, path)

            after = out(store, shape)

        assert sorted(map(canonical, after)) == sorted(map(canonical, before))

    there_and_back()


def test_the_newest_demonstration_counts_and_only_consent_goes_out(
    store: Store, tmp_path: Path
) -> None:
    asked, secret, foreign = invocation(), invocation(train_ok=False), invocation(tenant="other")
    put(
        store,
        tmp_path / "spool",
        *(asked, secret, foreign),
        demonstration(asked.id, order="6"),
        demonstration(asked.id, order="7"),
        demonstration(secret.id, order="8"),
    )

    rows = out(store, Shape.SFT)

    (row,) = rows
    assert row["messages"][:-1] == json.loads(bytes(asked.request))["messages"]
    assert row["messages"][-1]["tool_calls"][0]["function"]["arguments"] == '{"order":"7"}'
    assert row.keys() == {"messages"}  # not the model, not the sampling


def test_what_was_answered_stands_in_for_a_demonstration_when_asked_for(
    store: Store, tmp_path: Path
) -> None:
    good, corrected, failed = invocation(), invocation(), invocation(status=500)
    cut = invocation(
        response=msgspec.Raw(
            b'{"choices":[{"finish_reason":"length","message":{"role":"assistant","content":"h"}}]}'
        )
    )
    records = (good, corrected, failed, cut, demonstration(corrected.id, order="7"))
    put(store, tmp_path / "spool", *records)

    plain = out(store, Shape.SFT)
    rows = out(store, Shape.SFT, answers=True)

    assert len(plain) == 1
    assert len(rows) == 2
    assert {"role": "assistant", "content": "hi"} in [row["messages"][-1] for row in rows]


def test_a_preference_that_names_answers_goes_out_with_them(store: Store, tmp_path: Path) -> None:
    asked, other, gone = invocation(), invocation(), new_id()
    pairs = [
        {"preferred": ANSWER, "rejected": f"chatcmpl-{other.id.hex}"},
        {"preferred": ANSWER, "rejected": f"chatcmpl-{gone.hex}"},
    ]
    said = [
        Feedback(
            id=new_id(),
            ts=NOW,
            tenant="default",
            target="invocation",
            target_id=target,
            name="preference",
            value=pair,
        )
        for target, pair in zip((asked.id, other.id), pairs, strict=True)
    ]
    put(store, tmp_path / "spool", asked, other, *said)

    rows = out(store, Shape.DPO)

    (row,) = rows
    assert row["input"] == {"messages": json.loads(bytes(asked.request))["messages"]}
    assert row["preferred_output"] == [ANSWER]
    assert row["non_preferred_output"] == [{"role": "assistant", "content": "hi"}]


def test_a_demonstration_becomes_the_reference_of_an_rft_row(store: Store, tmp_path: Path) -> None:
    asked = invocation()
    put(store, tmp_path / "spool", asked, demonstration(asked.id, order="7"))

    (row,) = out(store, Shape.RFT)

    assert row["messages"] == json.loads(bytes(asked.request))["messages"]
    assert row["reference_answer"] == {"name": "refund", "arguments": {"order": "7"}}


def test_a_served_call_goes_out_as_a_flywheel_row(store: Store, tmp_path: Path) -> None:
    asked = invocation(task="refund")
    put(store, tmp_path / "spool", asked, invocation(status=503))

    (row,) = out(store, Shape.NVIDIA)

    assert row == {
        "timestamp": int(NOW.timestamp()),
        "workload_id": "refund",
        "client_id": "default",
        "request": json.loads(bytes(asked.request)),
        "response": json.loads(bytes(asked.response)),
    }


def test_a_filter_says_which_rows_go_out(store: Store, tmp_path: Path) -> None:
    wanted, other = invocation(task="refund"), invocation(task="chat")
    put(store, tmp_path / "spool", wanted, other)
    selection = Selection("default", Filter(task=("refund",)).sql(NOW))

    rows = out(store, Shape.NVIDIA, selection)

    assert [row["workload_id"] for row in rows] == ["refund"]


def everything(store: Store) -> dict[str, list[Any]]:
    """Every row of the log, but for when it was taken in."""
    return {
        table: store.table(f"SELECT * EXCLUDE (ingest_ts) FROM {table} ORDER BY id").to_pylist()
        for table in ("invocations", "feedback", "edits")
    }


def full() -> list[Record]:
    """Rows with something in every column, and rows with next to nothing."""
    pretty = msgspec.Raw(
        '{ "messages" : [{"role":"user","content":"na\u00efve \U0001f600"}] }'.encode()
    )
    one = invocation(
        request=pretty,
        parent_id=new_id(),
        conversation_id="c",
        trace_id="0" * 31 + "1",
        span_id="1" * 16,
        engine="engine-0",
        adapter="helpdesk--0123456789ab",
        arm="candidate",
        propensity=0.1,
        stream=True,
        time_to_first_chunk=0.123456789,
        duration=1.5,
        cost=0.00021,
        subject_id="ab" * 16,
        key_id="key_1",
        verdicts=[Verdict(guard="g", stage="after", action="flag", reason="hm", score=0.5)],
        stored=True,
        tags={"task": "refund", "": "empty", "k'": 'v"'},
        finish_reasons=["stop", ""],
        reasoning_output_tokens=7,
        cache_read_input_tokens=1,
    )
    bare = invocation(
        request=msgspec.Raw(b"null"),
        response=msgspec.Raw(b"null"),
        status=None,
        error_type="client_disconnect",
        train_ok=False,
        origin="bedrock",
    )
    comment = Feedback(
        id=new_id(),
        ts=NOW,
        tenant="default",
        target="episode",
        target_id=one.episode_id,
        name="comment",
        explanation="fine",
        score_value=0.5,
        score_label="good",
        source="judge",
        evaluator="j@1",
        tags={"a": "b"},
    )
    edit = Edit(id=new_id(), ts=NOW, tenant="default", invocation_id=one.id, tags={"a": "c"})
    return [one, bare, comment, demonstration(one.id, order="7"), edit]


def test_parquet_brings_whole_rows_back_byte_for_byte_into_another_log(
    store: Store, tmp_path: Path
) -> None:
    put(store, tmp_path / "spool", *full())
    before = everything(store)
    folder = tmp_path / "frozen"

    written = parquet.write(store, ALL, folder, NOW)
    with Store(tmp_path / "elsewhere" / "log.duckdb") as other:
        (tmp_path / "elsewhere" / "frozen").symlink_to(folder)
        bring(other, "parquet", tmp_path / "elsewhere" / "frozen")
        bring(other, "parquet", tmp_path / "elsewhere" / "frozen")
        after = everything(other)

    assert written == {"invocations": 2, "feedback": 3, "edits": 1}
    assert after == before


def test_rows_of_the_gateways_are_not_doubled_by_their_own_export(
    store: Store, tmp_path: Path
) -> None:
    put(store, tmp_path / "spool", *full())
    before = everything(store)
    parquet.write(store, ALL, tmp_path / "frozen", NOW)

    bring(store, "parquet", tmp_path / "frozen")

    assert everything(store) == before


def test_an_export_of_some_rows_holds_what_was_said_of_them_alone(
    store: Store, tmp_path: Path
) -> None:
    wanted, other = invocation(task="refund"), invocation(task="chat")
    about = [demonstration(wanted.id, order="7"), demonstration(other.id, order="8")]
    put(store, tmp_path / "spool", wanted, other, *about)
    selection = Selection("default", Filter(task=("refund",)).sql(NOW))

    parquet.write(store, selection, tmp_path / "frozen", NOW)

    table = pq.read_table(tmp_path / "frozen" / "feedback.parquet")
    assert [UUID(target) for target in table["target_id"].to_pylist()] == [wanted.id]


@pytest.mark.parametrize("damage", ["a byte", "a file", "the manifest"])
def test_an_export_that_is_not_whole_is_refused_before_its_first_row(
    store: Store, tmp_path: Path, damage: str
) -> None:
    put(store, tmp_path / "spool", invocation())
    folder = tmp_path / "frozen"
    parquet.write(store, ALL, folder, NOW)
    file = folder / "invocations.parquet"
    if damage == "a byte":
        content = bytearray(file.read_bytes())
        content[len(content) // 2] ^= 1
        file.write_bytes(content)
    elif damage == "a file":
        file.unlink()
    else:
        (folder / parquet.MANIFEST).unlink()

    with pytest.raises(ImportFailed, match="frozen"):
        bring(store, "parquet", folder)


def test_an_export_is_never_written_over_another_and_leaves_nothing_half(
    store: Store, tmp_path: Path
) -> None:
    (tmp_path / "frozen").mkdir()
    with pytest.raises(ImportFailed, match="there already"):
        parquet.write(store, ALL, tmp_path / "frozen", NOW)
    store.close()

    with pytest.raises(Exception, match="closed"):
        parquet.write(store, ALL, tmp_path / "other", NOW)

    assert sorted(path.name for path in tmp_path.iterdir() if path.is_dir()) == ["frozen"]


def test_a_file_that_breaks_off_leaves_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    path.write_text("old")

    def broken() -> Iterator[bytes]:
        yield b"new\n"
        raise ImportFailed("the log is gone")

    with pytest.raises(ImportFailed, match="gone"):
        write_lines(broken(), path)

    assert path.read_text() == "old"
    assert [file.name for file in tmp_path.iterdir()] == ["out.jsonl"]


@pytest.mark.parametrize("shape", Shape)
def test_where_nothing_fits_nothing_goes_out(store: Store, tmp_path: Path, shape: Shape) -> None:
    put(store, tmp_path / "spool", invocation(status=500))

    assert out(store, shape) == []


def test_a_large_log_goes_out_whole(store: Store, tmp_path: Path) -> None:
    calls = [invocation(request=body(f"q {n}")) for n in range(2500)]
    put(store, tmp_path / "spool", *calls)

    n = write_lines(jsonl.lines(store, ALL, Shape.NVIDIA), tmp_path / "out.jsonl")

    asked = {
        json.loads(line)["request"]["messages"][0]["content"]
        for line in (tmp_path / "out.jsonl").read_text().splitlines()
    }
    assert n == 2500
    assert asked == {f"q {n}" for n in range(2500)}


def test_a_device_is_written_to_and_stays(tmp_path: Path) -> None:
    out = tmp_path / "pipe"
    os.mkfifo(out)
    reader = os.open(out, os.O_RDONLY | os.O_NONBLOCK)

    write_lines([b"{}\n"], out)

    assert os.read(reader, 1000) == b"{}\n"
    assert out.is_fifo()
    os.close(reader)


def test_a_folder_is_no_file_to_write_to(tmp_path: Path) -> None:
    for folder in (tmp_path, Path()):
        with pytest.raises(ImportFailed, match="cannot write"):
            write_lines([b"{}\n"], folder)
