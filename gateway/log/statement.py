"""What somebody typed: one SELECT over the log's own tables, or nothing."""

import json
from collections.abc import Iterator
from typing import Any

import duckdb

from gateway.errors import BadQuery
from gateway.log.engine import ALIAS

FUNCTIONS = frozenset({"unnest", "range", "generate_series", "json_each", "json_tree", "repeat"})
"""Table functions that make rows out of their arguments alone."""


def check(sql: str, cursor: duckdb.DuckDBPyConnection) -> None:
    """Raise BadQuery unless ``sql`` is one SELECT that reads the log and nothing else.

    DuckDB's own lock-down keeps the files of this machine out of reach, but extensions bring
    functions that read other databases (``postgres_scan``), and a lake's catalog holds its keys.
    """
    try:
        statements = duckdb.extract_statements(sql)
    except duckdb.Error as error:
        raise BadQuery(str(error)) from error
    if len(statements) != 1 or statements[0].type != duckdb.StatementType.SELECT:
        raise BadQuery("only a single SELECT is answered")
    [(text,)] = cursor.execute("SELECT json_serialize_sql(?::VARCHAR)", [sql]).fetchall()
    try:
        tree = json.loads(text)
    except RecursionError as error:
        raise BadQuery("the query is nested too deeply") from error
    if tree["error"]:
        raise BadQuery(tree["error_message"])
    for node in _nodes(tree):
        _check(node)


def _check(node: dict[str, Any]) -> None:
    kind = node.get("type")
    if kind == "TABLE_FUNCTION" and node["function"]["function_name"] not in FUNCTIONS:
        raise BadQuery(f"{node['function']['function_name']} is not for queries of the log")
    if kind == "FUNCTION" and node["function_name"] in _REFUSED:
        raise BadQuery(f"{node['function_name']} is not for queries of the log")
    if kind not in ("BASE_TABLE", "SHOW_REF"):
        return
    place = (node.get("catalog_name") or ALIAS, node.get("schema_name") or "main")
    name = node["table_name"]
    if place not in _READABLE or name.lower().startswith(_SYSTEM) or not _FILE.isdisjoint(name):
        raise BadQuery(f"{name} is not a table of the log")


def _nodes(tree: Any) -> Iterator[dict[str, Any]]:
    """Every object of a JSON document. Not recursive: queries may be nested deeply."""
    waiting = [tree]
    while waiting:
        node = waiting.pop()
        if isinstance(node, dict):
            yield node
            waiting.extend(node.values())
        elif isinstance(node, list):
            waiting.extend(node)


_REFUSED = frozenset({"current_setting", "error"})
"""Functions that tell of settings, credentials among them, or speak in DuckDB's name."""
_FILE = frozenset("./")
"""A name with one of these may be a file's. The log's own are within reach: a lake's Parquet has
what was deleted, and a DuckDB file loses its lock when it is opened a second time."""
_SYSTEM = ("duckdb_", "pragma_", "pg_", "sqlite_")
"""DuckDB's own views, which tell of settings and addresses."""
_READABLE = frozenset((ALIAS, schema) for schema in ("main", ALIAS, "information_schema"))
