"""The dashboard and the alerts speak of metrics that /metrics tells, in PromQL that parses."""

import pytest
import yaml

from gateway.telemetry.exposition import House, exposed
from tests.queries import DASHBOARD, DEPLOY, PROMETHEUS_OWN, QUERIES, RULES, metrics_in


def told() -> set[str]:
    """The names that the exposition has a type for, as they are queried."""
    found = set()
    for line in exposed({}, {}, House()).splitlines():
        if line.startswith("# TYPE "):
            _, _, name, kind = line.split()
            ends = ("_bucket", "_sum", "_count") if kind == "histogram" else ("",)
            found |= {name + end for end in ends}
    return found


@pytest.mark.parametrize("query", QUERIES)
def test_a_query_parses_and_every_metric_in_it_is_told(query: str) -> None:
    assert metrics_in(query) <= told() | PROMETHEUS_OWN
    assert metrics_in(query)


@pytest.mark.parametrize(
    "query", ["sum(rate(a[5m])", "rat(a[5m])", "a{b=}c}", "a[5]", "sum by (x)) (a)"]
)
def test_a_broken_query_is_noticed(query: str) -> None:
    with pytest.raises((AssertionError, IndexError)):
        metrics_in(query)


def test_every_metric_is_on_the_dashboard_or_raises_an_alert() -> None:
    queried = set().union(*map(metrics_in, QUERIES))

    unseen = {
        name for name in told() if not name.endswith(("_sum", "_count")) and name not in queried
    }

    assert not unseen


def test_panels_have_ids_of_their_own_and_do_not_overlap() -> None:
    panels = DASHBOARD["panels"]
    cells = [
        (x, y)
        for grid in (panel["gridPos"] for panel in panels)
        for x in range(grid["x"], grid["x"] + grid["w"])
        for y in range(grid["y"], grid["y"] + grid["h"])
    ]

    assert len({panel["id"] for panel in panels}) == len(panels)
    assert len(set(cells)) == len(cells)
    assert max(x for x, _ in cells) < 24


def test_every_alert_says_how_bad_it_is_and_what_to_do() -> None:
    for rule in RULES:
        assert rule["labels"]["severity"] in {"critical", "warning", "info"}
        assert set(rule["annotations"]) == {"summary", "description"}
    assert len({rule["alert"] for rule in RULES}) == len(RULES)


def test_the_example_configuration_loads_the_alerts() -> None:
    config = yaml.safe_load((DEPLOY / "prometheus" / "prometheus.yml").read_text())

    assert config["rule_files"] == ["alerts.yml"]
    assert {job["job_name"] for job in config["scrape_configs"]} == {"ratchet"}
