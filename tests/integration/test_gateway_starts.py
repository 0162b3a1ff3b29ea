"""What the settings name and cannot be worked with is one line, and no traceback."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.integration.conftest import free_port


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ({"GATEWAY_SPOOL": "{file}/spool"}, "cannot use {file}/spool as spool: Not a directory"),
        ({"GATEWAY_LIMITS": "{file}/limits"}, "cannot count in {file}/limits: Not a directory"),
        ({"GATEWAY_DATABASE": "sqlite:///{file}"}, "GATEWAY_DATABASE: file is not a database"),
        ({"GATEWAY_DATABASE": "nonsense"}, "GATEWAY_DATABASE: Could not parse"),
        (
            {"GATEWAY_DATABASE": "mysql+nodriver://u:secret@db/x"},
            "GATEWAY_DATABASE: Can't load plugin: sqlalchemy.dialects:mysql.nodriver",
        ),
        (
            {"GATEWAY_DATABASE": "mssql+pyodbc://u:secret@db/x"},
            "//u:***@db/x needs a driver that is not installed: pip install pyodbc",
        ),
        ({"GATEWAY_HOST": "192.0.2.1"}, "cannot listen on 192.0.2.1:"),
        ({"GATEWAY_PORT": "none"}, "GATEWAY_PORT: "),
    ],
)
def test_a_gateway_that_cannot_start_says_why_in_a_line(
    tmp_path: Path, settings: dict[str, str], why: str
) -> None:
    file = tmp_path / "file"
    file.write_text("not a database, nor a directory " * 99)
    environment = os.environ | {
        "GATEWAY_PORT": str(free_port()),
        "GATEWAY_DATABASE": f"sqlite:///{tmp_path / 'state.db'}",
        "GATEWAY_SPOOL": str(tmp_path / "spool"),
        "GATEWAY_LIMITS": str(tmp_path / "limits"),
        "GATEWAY_RUN": str(tmp_path / "run"),
        "GATEWAY_SUBJECT_KEY": str(tmp_path / "subject.key"),
        **{name: value.format(file=file) for name, value in settings.items()},
    }

    done = subprocess.run(
        [sys.executable, "-m", "gateway"],
        env=environment,
        stderr=subprocess.PIPE,
        text=True,
        timeout=60,
        check=False,
    )

    assert done.returncode == 1
    line = done.stderr.splitlines()
    assert line[0].startswith("the gateway cannot start: ")
    assert why.format(file=file) in line[0]
    assert len(line) == 1
