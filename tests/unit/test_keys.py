from datetime import UTC, datetime
from pathlib import Path

import pytest

from gateway.keys import KeyStore, hashed
from serving.database import open_database

AT = datetime(2026, 1, 1, tzinfo=UTC)


def test_a_key_opens_by_its_hash_until_it_is_revoked(tmp_path: Path) -> None:
    database = open_database(f"sqlite:///{tmp_path / 'state.db'}")
    keys = KeyStore(database)

    key, secret = keys.create("ci", tenant="acme", at=AT)
    before = keys.active()
    keys.revoke(key.id, at=AT)

    assert before == {hashed(secret): key}
    assert keys.active() == {}
    database.dispose()


@pytest.mark.parametrize("tenant", ["", "a b", "müller", "a\nb", "x" * 129])
def test_a_tenants_name_fits_a_header(tmp_path: Path, tenant: str) -> None:
    database = open_database(f"sqlite:///{tmp_path / 'state.db'}")
    keys = KeyStore(database)

    with pytest.raises(ValueError, match="ASCII"):
        keys.create("ci", tenant=tenant, at=AT)

    assert keys.active() == {}
    database.dispose()
