"""Who is measured: this gateway, the peers that are installed, and nginx as the floor.

Peers live in environments of their own under ``~/.cache/ratchet-bench``; ``--install`` makes
them. Each runs in its default configuration, with debug logging off.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.benchmarks.gateway.ours import ours
from tests.benchmarks.gateway.tools import Process
from tests.integration.conftest import free_port

CACHE = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "ratchet-bench"
_NGINX = """
worker_processes 1; daemon off; pid {folder}/nginx.pid; error_log {folder}/error.log crit;
events {{ worker_connections 4096; }}
http {{
  access_log off; client_body_temp_path {folder}; proxy_temp_path {folder};
  fastcgi_temp_path {folder}; uwsgi_temp_path {folder}; scgi_temp_path {folder};
  client_body_buffer_size 64k; keepalive_requests 1000000;
  upstream mock {{ server 127.0.0.1:{upstream}; keepalive 512; keepalive_requests 1000000; }}
  server {{
    listen 127.0.0.1:{port} backlog=4096;
    location / {{
      proxy_pass http://mock; proxy_http_version 1.1; proxy_set_header Connection "";
      proxy_buffering off;
    }}
  }}
}}
"""
_LITELLM = """
model_list:
  - model_name: support-bot
    litellm_params:
      {{model: openai/base-8b, api_base: "http://127.0.0.1:{upstream}/v1", api_key: x}}
general_settings: {{master_key: sk-bench-7}}
litellm_settings: {{telemetry: false}}
"""


@dataclass(frozen=True)
class Target:
    """Something between clients and the mock."""

    name: str
    version: str
    logs: bool
    """Whether it keeps what was said, durably, before it answers."""
    start: Callable[[int, int, int], "Iterator[tuple[Process, Mapping[str, str]]]"]
    """``start(port, upstream, core)``: a context manager of the process and clients' headers."""
    streams: int = 256
    """Streams at once; fewer for what cannot carry so many."""
    connections: int = 32


def targets() -> tuple[list[Target], list[str]]:
    """Those that can be started here, the floor first; and what is missing, with how to get it."""
    found, missing = [], []
    for make in (_nginx, _vllm_router, _sglang_router, _portkey, _litellm):
        target = make()
        if isinstance(target, Target):
            found.append(target)
        else:
            missing.append(target)
    return [*found, ours_target()], missing


def install() -> None:
    """Make the peers' environments."""
    for name, packages in (
        ("litellm", ["litellm[proxy]!=1.82.7,!=1.82.8"]),
        ("vllm-router", ["vllm-router", "setproctitle"]),
        ("sglang-router", ["sglang-router", "setproctitle"]),
    ):
        subprocess.run([sys.executable, "-m", "venv", CACHE / name], check=True)
        subprocess.run([_python(name), "-m", "pip", "install", "-q", *packages], check=True)
    if npm := shutil.which("npm"):
        folder = CACHE / "portkey"
        folder.mkdir(parents=True, exist_ok=True)
        subprocess.run([npm, "install", "--silent", "@portkey-ai/gateway"], cwd=folder, check=True)


def ours_target() -> Target:
    return Target("ratchet", "this tree", logs=True, start=ours)


def _nginx() -> Target | str:
    binary = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
    if binary is None:
        return "nginx: apt-get install -y nginx-light"
    told = subprocess.run([binary, "-v"], capture_output=True, text=True, check=True).stderr

    @contextmanager
    def start(port: int, upstream: int, core: int) -> Iterator[tuple[Process, Mapping[str, str]]]:
        with tempfile.TemporaryDirectory() as folder:
            config = Path(folder) / "nginx.conf"
            config.write_text(_NGINX.format(folder=folder, port=port, upstream=upstream))
            with Process([binary, "-p", folder, "-c", config], core=core) as process:
                process.wait_for(f"http://127.0.0.1:{port}/health", {})
                yield process, {}

    return Target("nginx", told.strip().rpartition("/")[2], logs=False, start=start)


def _vllm_router() -> Target | str:
    return _router("vllm-router", "vllm_router.launch_router", level="warning")


def _sglang_router() -> Target | str:
    return _router("sglang-router", "sglang_router.launch_router", level="warn")


def _router(name: str, module: str, *, level: str) -> Target | str:
    version = _version(name, name)
    if version is None:
        return f"{name}: make bench-gateway ARGS=--install"

    @contextmanager
    def start(port: int, upstream: int, core: int) -> Iterator[tuple[Process, Mapping[str, str]]]:
        argv = [_python(name), "-m", module, "--worker-urls", f"http://127.0.0.1:{upstream}"]
        argv += ["--host", "127.0.0.1", "--port", str(port), "--log-level", level]
        argv += ["--prometheus-port", str(free_port())]  # both take the same one by default
        with (
            tempfile.TemporaryDirectory() as folder,
            Process(argv, core=core, cwd=Path(folder)) as process,
        ):
            _answers(process, port, {})
            yield process, {}

    return Target(name, version, logs=False, start=start)


def _portkey() -> Target | str:
    package = CACHE / "portkey" / "node_modules" / "@portkey-ai" / "gateway"
    node = shutil.which("node")
    if node is None or not package.is_dir():
        return "portkey: install Node, then make bench-gateway ARGS=--install"
    version = json.loads((package / "package.json").read_text())["version"]

    @contextmanager
    def start(port: int, upstream: int, core: int) -> Iterator[tuple[Process, Mapping[str, str]]]:
        headers = {
            "x-portkey-provider": "openai",
            "x-portkey-custom-host": f"http://127.0.0.1:{upstream}/v1",
            "Authorization": "Bearer sk-bench-7",
        }
        argv = [node, package / "build" / "start-server.js", f"--port={port}", "--headless"]
        env = {"NODE_ENV": "production", "TRUSTED_CUSTOM_HOSTS": "127.0.0.1,localhost"}
        with Process(argv, core=core, env=env) as process:
            _answers(process, port, headers)
            yield process, headers

    return Target("portkey", version, logs=False, start=start, streams=64)


def _litellm() -> Target | str:
    version = _version("litellm", "litellm")
    if version is None:
        return "litellm: make bench-gateway ARGS=--install"

    @contextmanager
    def start(port: int, upstream: int, core: int) -> Iterator[tuple[Process, Mapping[str, str]]]:
        headers = {"Authorization": "Bearer sk-bench-7"}
        env = {"LITELLM_LOG": "ERROR", "LITELLM_LOCAL_MODEL_COST_MAP": "True"}
        with tempfile.TemporaryDirectory() as folder:
            config = Path(folder) / "config.yaml"
            config.write_text(_LITELLM.format(upstream=upstream))
            binary = CACHE / "litellm" / "bin" / "litellm"
            argv = [binary, "--config", config, "--host", "127.0.0.1", "--port", str(port)]
            with Process([*argv, "--num_workers", "1"], core=core, env=env) as process:
                _answers(process, port, headers)
                yield process, headers

    return Target("litellm", version, logs=False, start=start, streams=32, connections=8)


def _answers(process: Process, port: int, headers: Mapping[str, str]) -> None:
    body = b'{"model": "support-bot", "messages": [{"role": "user", "content": "hello"}]}'
    url = f"http://127.0.0.1:{port}/v1/chat/completions"
    process.wait_for(url, {"content-type": "application/json", **headers}, body)


def _python(environment: str) -> Path:
    return CACHE / environment / "bin" / "python"


def _version(environment: str, distribution: str) -> str | None:
    if not _python(environment).exists():
        return None
    code = f"import importlib.metadata as m; print(m.version({distribution!r}))"
    found = subprocess.run(
        [_python(environment), "-c", code], capture_output=True, text=True, check=False
    )
    return found.stdout.strip() or None
