"""API keys: who is calling and what it may; made once, shown once, kept as hashes."""

from gateway.keys.book import KeyBook
from gateway.keys.key import EVERYTHING, Budget, Key, Limits, Scope, Window, tenant_named, wider
from gateway.keys.store import KeyStore, KeyTaken, StoredKey, hashed

__all__ = [
    "EVERYTHING",
    "Budget",
    "Key",
    "KeyBook",
    "KeyStore",
    "KeyTaken",
    "Limits",
    "Scope",
    "StoredKey",
    "Window",
    "hashed",
    "tenant_named",
    "wider",
]
