"""How long a month of Bedrock's invocation logs takes into the log, and out again.

    make bench-import [JSON=FILE] [ARGS="--rows 20000"]

The files are laid as Bedrock's S3 export lays them: gzip JSON lines, a folder an hour. Half of
the calls are Converse; the other half Anthropic's bodies, streamed as arrays of chunks. The
command is the real one, without a learner, so that what is measured is conversion, spool and
ingest; it runs as a process of its own.
"""

import argparse
import gzip
import itertools
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.benchmarks.traffic import Traffic

ROWS = 100_000
FILE_ROWS = 2500
CHUNK_CHARS = 12
"""About three tokens, as Anthropic's models stream them."""
MODEL = "eu.anthropic.claude-sonnet-4-5-20250929-v1:0"


def records(n: int) -> Iterator[bytes]:
    """Lines of the log, each of its own text."""
    for number, call in enumerate(Traffic().calls(n)):
        request = json.loads(bytes(call.request))
        system, asked = (message["content"] for message in request["messages"][:2])
        answered = json.loads(bytes(call.response))["choices"][0]["message"]["content"]
        body = _streamed if number % 2 else _conversed
        yield (
            json.dumps(
                {
                    "schemaType": "ModelInvocationLog",
                    "schemaVersion": "1.0",
                    "timestamp": call.ts.strftime("%Y-%m-%dT%H:%M:%SZ"),
                    "accountId": "123456789012",
                    "identity": {"arn": "arn:aws:sts::123456789012:assumed-role/app/web"},
                    "region": "eu-central-1",
                    "requestId": str(call.id),
                    "modelId": MODEL,
                    "requestMetadata": {"task": call.task},
                    **body(system, asked, answered),
                }
            ).encode()
            + b"\n"
        )


def _conversed(system: str, asked: str, answered: str) -> dict[str, Any]:
    request = {
        "system": [{"text": system}],
        "messages": [{"role": "user", "content": [{"text": asked}]}],
        "inferenceConfig": {"maxTokens": 512, "temperature": 0.2},
    }
    response = {
        "output": {"message": {"role": "assistant", "content": [{"text": answered}]}},
        "stopReason": "end_turn",
        "metrics": {"latencyMs": 900},
        "usage": {"inputTokens": 300, "outputTokens": 80, "totalTokens": 380},
    }
    return {"operation": "Converse"} | _sides(request, response)


def _streamed(system: str, asked: str, answered: str) -> dict[str, Any]:
    request = {
        "anthropic_version": "bedrock-2023-05-31",
        "max_tokens": 512,
        "system": system,
        "messages": [{"role": "user", "content": asked}],
    }
    pieces = (answered[at : at + CHUNK_CHARS] for at in range(0, len(answered), CHUNK_CHARS))
    chunks = [
        {"type": "message_start", "message": {"id": "msg_1", "usage": {"input_tokens": 300}}},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
        *(
            {
                "type": "content_block_delta",
                "index": 0,
                "delta": {"type": "text_delta", "text": piece},
            }
            for piece in pieces
        ),
        {"type": "content_block_stop", "index": 0},
        {
            "type": "message_delta",
            "delta": {"stop_reason": "end_turn"},
            "usage": {"output_tokens": 80},
        },
        {
            "type": "message_stop",
            "amazon-bedrock-invocationMetrics": {
                "inputTokenCount": 300,
                "outputTokenCount": 80,
                "invocationLatency": 900,
                "firstByteLatency": 200,
            },
        },
    ]
    return {"operation": "InvokeModelWithResponseStream"} | _sides(request, chunks)


def _sides(request: Any, response: Any) -> dict[str, Any]:
    kind = "application/json"
    return {
        "input": {"inputContentType": kind, "inputBodyJson": request, "inputTokenCount": 300},
        "output": {"outputContentType": kind, "outputBodyJson": response, "outputTokenCount": 80},
    }


def lay(folder: Path, n: int) -> None:
    """Write the files."""
    lines = records(n)
    for hour in itertools.count():
        some = list(itertools.islice(lines, FILE_ROWS))
        if not some:
            return
        place = f"us-east-1/2026/09/{hour // 24 + 1:02}/{hour % 24:02}/{hour:08}.json.gz"
        file = folder / "AWSLogs/123456789012/BedrockModelInvocationLogs" / place
        file.parent.mkdir(parents=True)
        file.write_bytes(gzip.compress(b"".join(some), compresslevel=6))


def ratchet(home: Path, *arguments: str) -> tuple[str, dict[str, float]]:
    """Run a command of ``ratchet log``; what it printed and what it took."""
    command = [sys.executable, "-c", "from learner.cli import main; main()", "log", *arguments]
    command += ["--config", str(home / "ratchet.yaml")]
    began = time.perf_counter()
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2]
    ) as process:
        assert process.stdout is not None
        printed = process.stdout.read()
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        sys.exit(f"{' '.join(command)} ended with {process.returncode}")
    return printed, {
        "s": round(time.perf_counter() - began, 1),
        "cpu_s": round(used.ru_utime + used.ru_stime, 1),
        "peak_rss_mb": round(used.ru_maxrss / 1024),
    }


def measure(home: Path, n: int) -> dict[str, Any]:
    """Every figure."""
    (home / "ratchet.yaml").write_text("models:\n  - {alias: helpdesk, base: base}\n")
    logs, rejects = home / "logs", str(home / "rejects.jsonl")
    lay(logs, n)
    command = ("import", "bedrock", str(logs), "--alias", "helpdesk", "--rejects", rejects)
    printed, first = ratchet(home, *command, "--json")
    told = json.loads(printed)
    _, again = ratchet(home, *command)
    _, out = ratchet(home, "export", "nvidia", "-o", str(home / "out.jsonl"))
    _, frozen = ratchet(home, "export", "parquet", "-o", str(home / "frozen"))
    printed, _ = ratchet(home, "sql", "SELECT count(*) AS n FROM invocations", "--json")
    in_log = json.loads(printed)[0]["n"]
    with (home / "out.jsonl").open("rb") as file:
        written = sum(1 for _ in file)
    return {
        "rows": n,
        "rejected": told["rejected"],
        "import_s": first["s"],
        "import_rows_per_s": round(n / first["s"]),
        "import_cpu_s": first["cpu_s"],
        "import_peak_rss_mb": first["peak_rss_mb"],
        "import_again_s": again["s"],
        "in_log_after_both": in_log,
        "export_nvidia_s": out["s"],
        "export_nvidia_rows": written,
        "export_nvidia_peak_rss_mb": out["peak_rss_mb"],
        "export_parquet_s": frozen["s"],
        "export_parquet_peak_rss_mb": frozen["peak_rss_mb"],
        "log_mb": round((home / "data" / "log.duckdb").stat().st_size / 2**20),
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print, and write ``--json``."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=ROWS)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as home:
        figures = measure(Path(home), options.rows)
    for name, value in figures.items():
        print(f"{name:28} {value}")
    if options.json:
        options.json.write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()
