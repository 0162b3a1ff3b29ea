"""API keys: who is calling and what it may; made once, shown once, kept as hashes."""

from gateway.keys.book import KeyBook
from gateway.keys.key import (
    EVERYTHING,
    Budget,
    Key,
    Limits,
    Scope,
    Spent,
    Window,
    tenant_named,
    wider,
)
from gateway.keys.store import KeyStore, KeyTaken, Rights, StoredKey, hashed
from gateway.keys.told import told

__all__ = [
    "EVERYTHING",
    "Budget",
    "Key",
    "KeyBook",
    "KeyStore",
    "KeyTaken",
    "Limits",
    "Rights",
    "Scope",
    "Spent",
    "StoredKey",
    "Window",
    "hashed",
    "tenant_named",
    "told",
    "wider",
]
