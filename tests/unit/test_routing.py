from collections import Counter
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import ModelNotFound, Unavailable
from gateway.fleet import Fleet
from gateway.model import Arm, ModelOptions, Provider, Shadow
from gateway.names import answerable, named, names
from gateway.routing import Plan, draw, plan
from serving.registry import EngineReport, EngineState, Route, RoutingSnapshot, Servable, Stage

NOW = datetime(2026, 9, 1, tzinfo=UTC)
BASE = "Qwen/Qwen3-4B"


def version(number: int, stage: Stage = Stage.GATED, *, alias: str = "helpdesk") -> Servable:
    digest = f"{number:064x}"[::-1]
    return Servable(alias, number, digest, f"{alias}--{digest[:12]}", stage, NOW)


V1, V2, V3 = version(1, Stage.RETIRED), version(2, Stage.LIVE), version(3)
FT3 = f"ft:{BASE}:ratchet:helpdesk:{V3.digest[:12]}"


def engine(
    number: int,
    holding: Iterable[Servable] = (V1, V2, V3),
    *,
    base: str = BASE,
    state: EngineState = EngineState.READY,
) -> EngineReport:
    resident = frozenset(version.served_name for version in holding)
    return EngineReport(f"e{number}", f"http://e{number}", base, state, resident, NOW)


def snapshot(*engines: EngineReport, **routes: Route) -> RoutingSnapshot:
    known = {"helpdesk": Route("helpdesk", "/b", BASE, V2), "plain": Route("plain", "/b", BASE)}
    return RoutingSnapshot(1, NOW, known | routes, engines or (engine(0),), (V3, V2, V1))


def planned(
    name: str,
    seen: RoutingSnapshot | None = None,
    models: Mapping[str, ModelOptions] | None = None,
    sticky: bytes | None = b"episode",
    fleet: Fleet | None = None,
) -> Plan:
    fleet = fleet or Fleet(now=lambda: 0.0, seed=b"w0")
    return plan(seen or snapshot(), name, models=models or {}, sticky=sticky, fleet=fleet)


def options(**fields: Any) -> ModelOptions:
    return ModelOptions.model_validate(fields)


ELSEWHERE = options(provider={"model": "openai/gpt-5-mini"}, timeout_s=7)


@pytest.mark.parametrize(
    ("name", "alias", "arm", "model", "number"),
    [
        ("helpdesk", "helpdesk", "incumbent", V2.served_name, 2),
        ("helpdesk@v1", "helpdesk", "pinned", V1.served_name, 1),
        ("helpdesk@v2", "helpdesk", "pinned", V2.served_name, 2),
        ("helpdesk@v3", "helpdesk", "pinned", V3.served_name, 3),
        (FT3, "helpdesk", "pinned", V3.served_name, 3),
        ("plain", "plain", "incumbent", BASE, None),
        (BASE, BASE, "incumbent", BASE, None),
    ],
)
def test_every_kind_of_name_resolves(
    name: str, alias: str, arm: str, model: str, number: int | None
) -> None:
    found = planned(name)

    [target] = found.targets
    assert (found.alias, found.arm, found.propensity) == (alias, arm, 1.0)
    assert (target.alias, target.model, target.version) == (alias, model, number)
    assert target.adapter == (model if number else None)
    assert (target.engine_id, target.url, target.fallback) == ("e0", "http://e0", False)


@pytest.mark.parametrize("name", ["nobody", "helpdesk@v4", "helpdesk@v", "nobody@v1", "ft:x:y"])
def test_a_name_that_means_nothing_is_not_found(name: str) -> None:
    with pytest.raises(ModelNotFound, match=r"GET /v1/models"):
        planned(name)


def test_an_alias_wins_over_a_base_of_the_same_name() -> None:
    seen = snapshot(**{BASE: Route(BASE, "/b", BASE, V2)})

    assert planned(BASE, seen).targets[0].model == V2.served_name


def test_the_base_never_stands_in_for_a_missing_adapter() -> None:
    seen = snapshot(engine(0, holding=()))

    with pytest.raises(Unavailable, match=f"none has loaded {V2.served_name} yet"):
        planned("helpdesk", seen)

    as_configured = planned("helpdesk", seen, {"helpdesk": options(fallbacks=["plain"])})
    assert [(t.model, t.fallback) for t in as_configured.targets] == [(BASE, True)]


@pytest.mark.parametrize("state", [EngineState.DRAINING, EngineState.DOWN, EngineState.STARTING])
def test_only_ready_engines_get_anything_new(state: EngineState) -> None:
    gone = engine(0, state=state)

    assert [t.engine_id for t in planned("plain", snapshot(gone, engine(1))).targets] == ["e1"]
    with pytest.raises(Unavailable, match="none that serves its base is ready") as caught:
        planned("plain", snapshot(gone))
    assert caught.value.retry_after_s == 1.0


def test_an_engine_of_another_base_or_without_the_adapter_is_not_asked() -> None:
    seen = snapshot(engine(0, base="other"), engine(1, holding=[V1]), engine(2))

    assert [t.engine_id for t in planned("helpdesk", seen).targets] == ["e2"]


def test_the_least_loaded_engine_comes_first_and_the_others_are_kept_for_retries() -> None:
    fleet = Fleet(now=lambda: 0.0, seed=b"")
    for number, load in enumerate((9, 0, 5)):
        for _ in range(load):
            fleet.begin(f"e{number}")

    found = planned("plain", snapshot(engine(0), engine(1), engine(2)), fleet=fleet)

    assert [target.engine_id for target in found.targets] == ["e1", "e2", "e0"]


def test_a_provider_is_a_target_without_an_engine() -> None:
    found = planned("mini", models={"mini": ELSEWHERE})

    [target] = found.targets
    assert (target.alias, target.model, target.url) == ("mini", "openai/gpt-5-mini", "")
    assert target.provider == Provider(model="openai/gpt-5-mini")
    assert target.timeout_s == 7


def test_a_time_limit_is_that_of_who_answers() -> None:
    models = {
        "helpdesk": options(timeout_s=3, fallbacks=["mini", "plain"]),
        "mini": ELSEWHERE,
    }

    found = planned("helpdesk", models=models)

    assert [target.timeout_s for target in found.targets] == [3, 7, None]
    assert planned("helpdesk@v3", models=models).targets[0].timeout_s == 3


def test_a_fallback_is_asked_before_engines_that_do_not_answer() -> None:
    fleet = Fleet(now=lambda: 0.0, seed=b"w0")
    for name in ("e0", "e1"):
        fleet.begin(name)
        fleet.end(name, failed=True)
    seen = snapshot(engine(0), engine(1))
    models = {"helpdesk": options(fallbacks=["mini"]), "mini": ELSEWHERE}

    found = planned("helpdesk", seen, models, fleet=fleet)

    assert [target.fallback for target in found.targets] == [True, False, False]


def test_fallbacks_and_theirs_follow_in_order_each_once() -> None:
    models = {
        "helpdesk": options(fallbacks=["helpdesk@v1", "mini", "plain", "gone"]),
        "mini": ELSEWHERE.model_copy(update={"fallbacks": (BASE, "helpdesk", "mini")}),
        "plain": options(fallbacks=["mini"]),
    }

    found = planned("helpdesk", models=models)

    asked = [(target.alias, target.version) for target in found.targets]
    assert asked == [
        ("helpdesk", 2),
        ("helpdesk", 1),
        ("mini", None),
        (BASE, None),
        ("plain", None),
    ]
    assert [target.fallback for target in found.targets] == [False, True, True, True, True]


@given(
    st.dictionaries(
        st.sampled_from("abcde"), st.lists(st.sampled_from("abcdef"), max_size=5), min_size=1
    )
)
def test_chains_of_fallbacks_end_whatever_they_name(chains: dict[str, list[str]]) -> None:
    models = {
        name: options(provider={"model": f"openai/{name}"}, fallbacks=chain)
        for name, chain in chains.items()
    }
    first = min(chains)

    found = planned(first, models=models)

    asked = [target.alias for target in found.targets]
    assert asked[0] == first
    assert len(asked) == len(set(asked))
    assert set(asked) <= set(chains)


def test_who_names_a_version_gets_it_or_nothing() -> None:
    models = {"helpdesk": options(fallbacks=["plain"], shadow={"to": "plain"})}

    found = planned("helpdesk@v3", models=models)
    with pytest.raises(Unavailable):
        planned("helpdesk@v3", snapshot(engine(0, holding=[V2])), models)

    assert (len(found.targets), found.shadow) == (1, None)


CANARY = {"helpdesk": options(arms=[{"to": "helpdesk@v3", "weight": 0.1}])}


def test_an_arm_gets_its_share_and_its_probability_is_in_the_plan() -> None:
    plans = [planned("helpdesk", models=CANARY, sticky=b"%d" % n) for n in range(5000)]

    drawn = Counter((p.arm, p.propensity, p.targets[0].version) for p in plans)
    # Binomial(5000, 0.1) has a standard deviation of 21.
    assert set(drawn) == {("canary", 0.1, 3), ("incumbent", 0.9, 2)}
    assert abs(drawn["canary", 0.1, 3] - 500) < 4 * 21.2


def test_what_nothing_binds_is_drawn_each_time_anew() -> None:
    fleet = Fleet(now=lambda: 0.0, seed=b"w0")
    plans = [planned("helpdesk", models=CANARY, sticky=None, fleet=fleet) for _ in range(5000)]

    drawn = Counter(p.arm for p in plans)

    assert abs(drawn["canary"] - 500) < 4 * 21.2


def test_an_arm_that_nobody_can_answer_for_is_stood_in_for_by_the_incumbent() -> None:
    models = {"helpdesk": options(arms=[{"to": "helpdesk@v3", "weight": 0.999999}])}

    whole, lacking = (
        planned("helpdesk", snapshot(engine(0, holding=held)), models) for held in ([V2, V3], [V2])
    )

    assert [(t.version, t.fallback) for t in whole.targets] == [(3, False), (2, True)]
    assert [(t.version, t.fallback) for t in lacking.targets] == [(2, True)]
    assert (lacking.arm, lacking.propensity) == ("canary", 0.999999)


weights = st.floats(0.001, 0.49)
points = st.floats(0, 1)


@given(weights, weights, st.floats(0, 0.5), points)
def test_raising_a_weight_only_moves_traffic_into_that_arm(
    first: float, last: float, more: float, point: float
) -> None:
    def drawn(first: float, last: float) -> str:
        arms = (Arm(name="a", to="x", weight=first), Arm(name="b", to="y", weight=last))
        arm = draw(arms, point)
        return arm.name if arm else "incumbent"

    before = drawn(first, last)

    assert drawn(first + more * (1 - first - last), last) in (before, "a")
    assert drawn(first, last + more * (1 - first - last)) in (before, "b")


@given(st.lists(weights, min_size=3, max_size=6), st.floats(0, 1), points)
def test_raising_the_first_of_many_arms_moves_nothing_between_the_others(
    many: list[float], more: float, point: float
) -> None:
    shares = [weight / (sum(many) + 0.2) for weight in many]

    def drawn(first: float) -> str:
        arms = [
            Arm(name=f"arm{n}", to="x", weight=weight)
            for n, weight in enumerate([first, *shares[1:]])
        ]
        arm = draw(arms, point)
        return arm.name if arm else "incumbent"

    raised = shares[0] + more * (0.999 - sum(shares))

    assert drawn(raised) in (drawn(shares[0]), "arm0")


@given(st.binary(min_size=1, max_size=40))
def test_an_episode_stays_with_its_arm(sticky: bytes) -> None:
    workers = [Fleet(now=lambda: 0.0, seed=seed) for seed in (b"w0", b"w1")]

    arms = {planned("helpdesk", models=CANARY, sticky=sticky, fleet=w).arm for w in workers}

    assert len(arms) == 1


def test_a_shadow_is_sent_its_share_whatever_the_arm() -> None:
    shadow = Shadow(to="plain", share=0.5)
    models = {"helpdesk": CANARY["helpdesk"].model_copy(update={"shadow": shadow})}

    plans = [planned("helpdesk", models=models, sticky=b"%d" % n) for n in range(4000)]

    mirrored = Counter(p.arm for p in plans if p.shadow)
    # Binomial(4000, 0.5) has a standard deviation of 32, Binomial(4000, 0.05) one of 14.
    assert abs(mirrored.total() - 2000) < 4 * 32
    assert abs(mirrored["canary"] - 200) < 4 * 14
    assert {p.shadow.model for p in plans if p.shadow} == {BASE}


def test_a_shadow_that_nobody_can_be_is_none() -> None:
    models = {"helpdesk": options(shadow={"to": "helpdesk@v3"})}

    assert planned("helpdesk", snapshot(engine(0, holding=[V2])), models).shadow is None


def test_the_list_has_every_name_with_what_it_means() -> None:
    listed = {name.id: name for name in names(snapshot(), {"mini": ELSEWHERE})}

    assert list(listed) == sorted(
        ["helpdesk", "helpdesk@v1", "helpdesk@v2", "helpdesk@v3", "mini", "plain", BASE]
    )
    canary = listed["helpdesk@v3"]
    assert (canary.parent, canary.adapter, canary.version) == (BASE, V3.served_name, 3)
    assert (canary.tuned, canary.stage) == (FT3, Stage.GATED)
    assert canary.created == int(NOW.timestamp())
    assert listed["helpdesk"].version == 2
    assert (listed["plain"].parent, listed["plain"].adapter) == (BASE, None)
    assert (listed[BASE].parent, listed["mini"].owned_by) == (None, "openai")


def test_one_name_is_told_of_also_by_its_ft_name() -> None:
    assert named(snapshot(), {}, FT3).version == 3
    with pytest.raises(ModelNotFound):
        named(snapshot(), {}, "nobody")


def test_an_alias_is_ready_with_an_engine_and_a_provider_without() -> None:
    seen = snapshot(engine(0, holding=[V1]))

    assert answerable(seen, {"mini": ELSEWHERE}) == {"helpdesk": False, "plain": True, "mini": True}
