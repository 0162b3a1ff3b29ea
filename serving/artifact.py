"""Adapters at rest: checked, named by their content, never changed again."""

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from serving.errors import ArtifactInvalid

CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"
PROBE = "probe.json"
"""Optional log-probabilities of a fixed prompt, as the trainer computed them."""
MARKER = "artifact.json"
"""Written last: a directory without it is not an artifact."""

_HASH_CHUNK = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Artifact:
    """One published adapter. ``digest`` covers weights and settings, so equal means equal."""

    digest: str
    path: Path
    rank: int
    base: str
    """The base it was checked against, as the trainer named it."""


def publish(
    source: Path, store: Path, *, base_config: Path | Mapping[str, Any], max_rank: int
) -> Artifact:
    """Check the PEFT adapter in ``source`` and copy it to ``store/<digest>``.

    ``base_config`` is the base's ``config.json`` (its contents, its path or its folder).
    Only the settings, the safetensors weights and a probe are taken; whatever else lies in
    ``source`` stays there. Publishing the same adapter again gives the same artifact. Reads
    the weights twice. ArtifactInvalid, with nothing left behind, when vLLM could not serve
    it safely.
    """
    from serving import weights  # numpy: the gateway imports this module and must start fast
    from serving.peft import check_pairs, read_settings
    from serving.probe import read_reference

    settings = read_settings(source / CONFIG)
    if not (source / WEIGHTS).is_file():
        raise ArtifactInvalid(f"{source} has no {WEIGHTS}; pickled weights are never read")
    tensors = weights.read_tensors(source / WEIGHTS)
    pairs = weights.lora_pairs(tensors)
    base, base_name = _base(base_config)
    check_pairs(pairs, settings, base, max_rank)
    weights.check_finite(source / WEIGHTS, tensors)
    probe = read_reference(source / PROBE)

    store.mkdir(parents=True, exist_ok=True)
    with _staging(store) as staged:
        with _synced(staged / CONFIG) as file:
            file.write(settings.canonical(sorted({pair.kind for pair in pairs})))
        with _synced(staged / WEIGHTS) as file:
            weights.write_canonical(source / WEIGHTS, tensors, file)
        if probe is not None:
            with _synced(staged / PROBE) as file:
                file.write(probe.as_json())
        return _seal(staged, store, rank=settings.rank, base=base_name)


def verify(path: Path) -> Artifact:
    """The artifact in ``path``, after hashing every file again.

    ArtifactInvalid when it is unfinished, was changed, or is not what its name says.
    """
    from serving.peft import read_json

    if not (path / MARKER).is_file():
        raise ArtifactInvalid(f"{path} has no {MARKER}: it was never finished")
    marker = read_json(path / MARKER)
    try:
        artifact = Artifact(str(marker["digest"]), path, int(marker["rank"]), str(marker["base"]))
        files = dict(marker["files"])
    except (KeyError, TypeError, ValueError) as error:
        raise ArtifactInvalid(f"{path / MARKER} is not a marker") from error
    for name in (CONFIG, WEIGHTS):
        if not (path / name).is_file():
            raise ArtifactInvalid(f"{path} has lost its {name}")
    if _hash(path / CONFIG, path / WEIGHTS) != artifact.digest or path.name != artifact.digest:
        raise ArtifactInvalid(f"{path} is not what its name says: somebody changed it")
    if PROBE in files and (not (path / PROBE).is_file() or _hash(path / PROBE) != files[PROBE]):
        raise ArtifactInvalid(f"{path / PROBE} was changed")
    return artifact


def _seal(staged: Path, store: Path, *, rank: int, base: str) -> Artifact:
    digest = _hash(staged / CONFIG, staged / WEIGHTS)
    target = store / digest
    if target.exists():
        return verify(target)
    files = {file.name: _hash(file) for file in sorted(staged.iterdir())}
    marker = {"digest": digest, "rank": rank, "base": base, "files": files}
    with _synced(staged / MARKER) as file:
        file.write(json.dumps(marker, indent=1, sort_keys=True).encode())
    for path in staged.iterdir():
        path.chmod(0o444)
    staged.chmod(0o755)
    _sync_folder(staged)
    try:
        staged.rename(target)
    except OSError:
        if not target.exists():  # another publisher of the same adapter was faster
            raise
    _sync_folder(store)
    return verify(target)


def _base(config: Path | Mapping[str, Any]) -> tuple[Mapping[str, Any], str]:
    from serving.peft import read_json

    if isinstance(config, Path):
        file = config / "config.json" if config.is_dir() else config
        return read_json(file), file.parent.name
    return config, str(config.get("_name_or_path") or config.get("model_type") or "")


@contextmanager
def _staging(store: Path) -> Iterator[Path]:
    staged = Path(tempfile.mkdtemp(prefix=".incoming-", dir=store))
    try:
        yield staged
    finally:
        shutil.rmtree(staged, ignore_errors=True)


@contextmanager
def _synced(path: Path) -> Iterator[BinaryIO]:
    with path.open("wb") as file:
        yield file
        file.flush()
        os.fsync(file.fileno())


def _sync_folder(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _hash(*paths: Path) -> str:
    # Each file's length goes in first, so that no bytes can move from one file to the next.
    digest = hashlib.sha256()
    for path in paths:
        digest.update(path.stat().st_size.to_bytes(8, "little"))
        with path.open("rb") as file:
            while chunk := file.read(_HASH_CHUNK):
                digest.update(chunk)
    return digest.hexdigest()
