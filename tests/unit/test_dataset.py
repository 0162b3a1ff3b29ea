import json
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest

from gateway.log import rows
from gateway.log.filter import Filter
from gateway.log.record import Feedback, Invocation, Verdict
from gateway.log.store import Store
from learner.dataset import build as building
from learner.dataset.build import HELD_OUT, TRAIN, Built, count_new, record_lineage
from learner.dataset.formats import read_rft, reference_of
from learner.dataset.snapshot import read
from learner.errors import DatasetError
from tests.factories import NOW, body, demonstration, invocation

ALL = Filter()


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store(tmp_path / "log.duckdb") as store:
        yield store


def logged(store: Store, invocations: Sequence[Invocation], feedback: Sequence[Feedback]) -> None:
    tables = {
        "invocations": rows.table(
            [rows.invocation(one, NOW, {}) for one in invocations], rows.INVOCATIONS
        ),
        "feedback": rows.table([rows.feedback(one, NOW) for one in feedback], rows.FEEDBACK),
    }
    store.append(tables, [], NOW.replace(tzinfo=None))


def calls(n: int, **changes: Any) -> list[Invocation]:
    return [invocation(**changes) for _ in range(n)]


def build(store: Store, folder: Path, held_out: float | Path = 0.3, where: Filter = ALL) -> Built:
    return building.build(
        store,
        "helpdesk",
        tenant="default",
        where=where,
        held_out=held_out,
        upto=NOW,
        folder=folder,
    )


def new(store: Store, after: datetime | None = None, where: Filter = ALL) -> int:
    return count_new(store, "helpdesk", "default", where, after=after, now=NOW)


def test_only_chats_that_were_given_to_their_client_are_learnt_from(
    store: Store, tmp_path: Path
) -> None:
    blocked = [Verdict(guard="g", stage="before", action="block")]
    chats = calls(80)
    others = [
        *calls(2, arm="shadow"),
        *calls(2, operation_name="text_completion"),
        *calls(2, verdicts=blocked),
        *calls(2, response=msgspec.Raw(b'{"type":"message","content":[]}')),
    ]
    every = [*chats, *others]
    logged(store, every, [demonstration(one.id, order="1") for one in every])

    built = build(store, tmp_path, 0.5)

    samples = [*read(built.path, TRAIN), *read(built.path, HELD_OUT)]
    assert {sample.id for sample in samples} == {str(one.id) for one in chats}
    assert new(store, datetime(1970, 1, 1, tzinfo=UTC)) == 80


def test_demonstrated_calls_become_samples_with_a_reference(store: Store, tmp_path: Path) -> None:
    asked = calls(100)
    logged(store, asked, [demonstration(call.id, order="7") for call in asked])

    built = build(store, tmp_path)

    samples = read(built.path, TRAIN) + read(built.path, HELD_OUT)
    assert {sample.id for sample in samples} == {str(call.id) for call in asked}
    assert all(
        sample.reference_answer == {"name": "refund", "arguments": {"order": "7"}}
        for sample in samples
    )
    assert built.train + built.held_out == 100


def test_the_same_log_gives_the_same_file_and_a_prompt_keeps_its_split(
    store: Store, tmp_path: Path
) -> None:
    asked = calls(120)
    logged(store, asked, [demonstration(call.id) for call in asked])
    first, again = build(store, tmp_path), build(store, tmp_path)
    more = calls(120)
    logged(store, more, [demonstration(call.id) for call in more])

    later = build(store, tmp_path)

    assert first.path == again.path
    assert later.path != first.path
    old = {sample.id for sample in read(first.path, HELD_OUT)}
    assert old <= {sample.id for sample in read(later.path, HELD_OUT)}


def test_of_equal_prompts_the_newest_demonstration_stays(store: Store, tmp_path: Path) -> None:
    same = calls(2, request=body("the same question"))
    others = calls(100)
    feedback = [demonstration(same[0].id, order="old"), demonstration(same[1].id, order="new")]
    logged(store, [*same, *others], feedback + [demonstration(call.id) for call in others])

    built = build(store, tmp_path)

    kept = [
        sample.reference_answer["arguments"]
        for sample in read(built.path, TRAIN) + read(built.path, HELD_OUT)
        if sample.messages[0]["content"] == "the same question"
    ]
    assert kept == [{"order": "new"}]
    assert built.duplicates == 1


def test_only_own_consenting_traffic_is_learnt_from(store: Store, tmp_path: Path) -> None:
    good = calls(100)
    refused = calls(5, train_ok=False)
    foreign = calls(5, request_model="other")
    stranger = calls(5, tenant="stranger")  # feedback comes from another tenant
    asked = [*good, *refused, *foreign, *stranger]
    logged(store, asked, [demonstration(call.id) for call in asked])

    built = build(store, tmp_path)

    ids = {sample.id for sample in read(built.path, TRAIN) + read(built.path, HELD_OUT)}
    assert ids == {str(call.id) for call in good}
    assert new(store) == 100
    assert new(store, after=NOW) == 0


def test_a_policys_filter_holds_for_the_dataset_and_for_what_counts_as_new(
    store: Store, tmp_path: Path
) -> None:
    refunds = calls(100, tags={"task": "refund"})
    others = [*calls(30, tags={"task": "returns"}), *calls(30)]
    asked = [*refunds, *others]
    logged(store, asked, [demonstration(call.id) for call in asked])
    where = Filter.model_validate({"metadata": {"task": "refund"}, "time": {"after": "1h"}})

    built = build(store, tmp_path, where=where)

    ids = {sample.id for sample in read(built.path, TRAIN) + read(built.path, HELD_OUT)}
    assert ids == {str(call.id) for call in refunds}
    assert new(store, where=where) == 100
    assert new(store) == 160


def test_a_call_whose_bodies_are_gone_is_not_learnt_from(store: Store, tmp_path: Path) -> None:
    whole, emptied = calls(100), calls(9, request=msgspec.Raw(b"null"))
    logged(store, [*whole, *emptied], [demonstration(call.id) for call in [*whole, *emptied]])

    built = build(store, tmp_path)

    assert built.train + built.held_out == 100


def test_what_was_imported_and_is_no_chat_keeps_nobody_from_learning(
    store: Store, tmp_path: Path
) -> None:
    asked, odd = calls(100), invocation(request=msgspec.Raw(b'{"prompt":"once upon a time"}'))
    logged(store, [*asked, odd], [demonstration(call.id, order="7") for call in [*asked, odd]])

    built = build(store, tmp_path)

    assert built.train + built.held_out == new(store) == 100


def test_a_held_out_file_is_never_trained_on(store: Store, tmp_path: Path) -> None:
    asked = calls(10)
    logged(store, asked, [demonstration(call.id) for call in asked])
    leaking = json.loads(bytes(asked[0].request))["messages"]
    file = tmp_path / "heldout.jsonl"
    held = [{"messages": leaking, "reference_answer": 1}]
    held += [
        {"messages": [{"role": "user", "content": f"new {n}"}], "reference_answer": n}
        for n in range(24)
    ]
    file.write_text("\n".join(map(json.dumps, held)))

    built = build(store, tmp_path, file)

    assert (built.train, built.held_out, built.leaked) == (9, 25, 1)
    assert str(asked[0].id) not in {sample.id for sample in read(built.path, TRAIN)}


def test_an_empty_split_is_an_error_that_says_what_to_do(store: Store, tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="more demonstrations"):
        build(store, tmp_path)


def test_the_log_knows_which_invocations_a_snapshot_holds(store: Store, tmp_path: Path) -> None:
    asked = calls(100)
    logged(store, asked, [demonstration(call.id) for call in asked])
    built = build(store, tmp_path)

    record_lineage(store, built, alias="helpdesk", upto=NOW, at=NOW)

    (dataset,) = store.rows("SELECT * FROM datasets")
    items = store.rows("SELECT invocation_id::VARCHAR AS id FROM dataset_items")
    assert (dataset["sha256"], dataset["n_rows"]) == (built.path.stem, 100)
    assert {item["id"] for item in items} == {str(call.id) for call in asked}


def test_several_calls_and_plain_text_are_references_too() -> None:
    call = {"function": {"name": "f", "arguments": "{}"}}

    assert reference_of({"content": "42"}) == "42"
    assert reference_of({"tool_calls": [call, call]}) == [{"name": "f", "arguments": {}}] * 2


@pytest.mark.parametrize("line", ["{", "[]", '{"messages": []}', '{"messages": [{}]}'])
def test_a_bad_row_is_named_by_its_line(tmp_path: Path, line: str) -> None:
    file = tmp_path / "rows.jsonl"
    good = json.dumps({"messages": [{"role": "user", "content": "x"}], "reference_answer": 1})
    file.write_text(f"{good}\n{line}\n")

    with pytest.raises(DatasetError, match="line 2"):
        list(read_rft(file))
