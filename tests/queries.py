"""The queries of the dashboard and the alerts, and what they ask for."""

import json
import re
from pathlib import Path

import yaml

DEPLOY = Path(__file__).parents[1] / "deploy"
DASHBOARD = json.loads((DEPLOY / "grafana" / "ratchet.json").read_text())
ALERTS = yaml.safe_load((DEPLOY / "prometheus" / "alerts.yml").read_text())
RULES = [rule for group in ALERTS["groups"] for rule in group["rules"]]
QUERIES = [
    *(target["expr"] for panel in DASHBOARD["panels"] for target in panel.get("targets", ())),
    *(rule["expr"] for rule in RULES),
]

FUNCTIONS = {"rate", "increase", "deriv", "histogram_quantile", "sum", "count", "vector"}
WORDS = {"by", "and", "or"}
PROMETHEUS_OWN = {"up"}
TOKEN = re.compile(
    r"""(?P<text>"(?:[^"\\]|\\.)*")|(?P<range>\[(?:\d+[smhd]|\$__rate_interval)\])"""
    r"""|(?P<number>\d+(?:\.\d+)?(?:e\d+)?)|(?P<word>[A-Za-z_]\w*)"""
    r"""|(?P<operator>=~|!~|!=|==|>=|<=|[-+*/<>=,(){}])|(?P<space>\s+)"""
)
PAIRS = {")": "(", "}": "{"}


def tokens(query: str) -> list[str]:
    """The tokens of a query; what is none is an error."""
    found, end = [], 0
    while end < len(query):
        token = TOKEN.match(query, end)
        assert token, f"no PromQL from here: {query[end:]}"
        if not token["space"]:
            found.append(token[0])
        end = token.end()
    return found


def metrics_in(query: str) -> set[str]:
    """The metrics of a query, whose brackets must pair and whose functions must exist."""
    names, open_brackets = set(), []
    told = [*tokens(query), ""]
    for before, token, after in zip(["", *told], told, told[1:], strict=False):
        if token in PAIRS.values():
            labels = token == "(" and before == "by"
            open_brackets.append("labels" if labels else token)
        elif token in PAIRS:
            assert open_brackets.pop() in (PAIRS[token], "labels"), query
        elif token[:1].isalpha():
            known = token in FUNCTIONS | WORDS
            assert known or after != "(", f"{token} is no function: {query}"
            if not known and open_brackets[-1:] in ([], ["("]):
                names.add(token)
    assert not open_brackets, query
    return names
