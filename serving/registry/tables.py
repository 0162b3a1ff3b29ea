"""The registry's tables. The schema holds the invariants it can."""

import sqlalchemy as sa

from serving.database import UtcDateTime
from serving.registry.stage import Stage

METADATA = sa.MetaData()

aliases = sa.Table(
    "aliases",
    METADATA,
    sa.Column("name", sa.String, primary_key=True),
    sa.Column("base", sa.String, nullable=False),
    sa.Column("served_base", sa.String, nullable=False),
    sa.Column("declared_at", UtcDateTime, nullable=False),
)

adapter_versions = sa.Table(
    "adapter_versions",
    METADATA,
    sa.Column("alias", sa.String, sa.ForeignKey("aliases.name"), primary_key=True),
    sa.Column("version", sa.Integer, primary_key=True),
    sa.Column("digest", sa.String, nullable=False),
    sa.Column("path", sa.String, nullable=False),
    sa.Column("base", sa.String, nullable=False),
    sa.Column("rank", sa.Integer, nullable=False),
    sa.Column("stage", sa.String, nullable=False),
    sa.Column("created_at", UtcDateTime, nullable=False),
    sa.Column("changed_at", UtcDateTime, nullable=False),
    sa.Column("lineage", sa.JSON, nullable=False),
    sa.Column("verdict_id", sa.String),
    sa.Column("reason", sa.String),
    sa.Column("predecessor", sa.Integer),
    sa.Column("answered_until", UtcDateTime),
    sa.UniqueConstraint("alias", "digest", name="one_version_per_digest"),
)

_LIVE = adapter_versions.c.stage == sa.literal_column(f"'{Stage.LIVE}'")
sa.Index(
    "one_live_version_per_alias",
    adapter_versions.c.alias,
    unique=True,
    sqlite_where=_LIVE,
    postgresql_where=_LIVE,
)

moves = sa.Table(
    "moves",
    METADATA,
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("alias", sa.String, nullable=False),
    sa.Column("version", sa.Integer, nullable=False),
    sa.Column("old", sa.String),
    sa.Column("new", sa.String, nullable=False),
    sa.Column("at", UtcDateTime, nullable=False),
    sa.Column("verdict_id", sa.String),
    sa.Column("reason", sa.String),
    sa.Index("moves_of_alias", "alias", "id"),
)

engines = sa.Table(
    "engines",
    METADATA,
    sa.Column("engine_id", sa.String, primary_key=True),
    sa.Column("url", sa.String, nullable=False),
    sa.Column("base", sa.String, nullable=False),
    sa.Column("state", sa.String, nullable=False),
    sa.Column("resident", sa.JSON, nullable=False),
    sa.Column("failed", sa.JSON, nullable=False),
    sa.Column("at", UtcDateTime, nullable=False),
)

# A counter that grows with every change the gateway or an agent must know of. The database's
# own change counter also moves with every job event and heartbeat, and would wake all readers.
routing_clock = sa.Table(
    "routing_clock",
    METADATA,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("version", sa.Integer, nullable=False),
)
