"""``python -m serving --config FILE``: run the agent of one engine until SIGTERM or Ctrl-C."""

import argparse
import asyncio
import logging
import signal
import sys
from pathlib import Path

from pydantic import ValidationError

from serving.agent import Agent
from serving.errors import LaunchError
from serving.launch import this_machine
from serving.registry import Registry
from serving.settings import AgentSettings

_BAD_CONFIG = 2
_CANNOT_LAUNCH = 3


def main() -> int:
    """The exit code: 0 after a clean stop, 2 for a bad file, 3 when vLLM cannot start."""
    parser = argparse.ArgumentParser(prog="python -m serving", description=__doc__)
    parser.add_argument("--config", type=Path, required=True, help="AgentSettings as JSON")
    path: Path = parser.parse_args().config
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    try:
        settings = AgentSettings.model_validate_json(path.read_text())
    except (OSError, ValidationError) as error:
        sys.stderr.write(f"{path}: {error}\n")
        return _BAD_CONFIG
    try:
        asyncio.run(_serve(settings))
    except LaunchError as error:
        sys.stderr.write(f"{error}\n")
        return _CANNOT_LAUNCH
    return 0


async def _serve(settings: AgentSettings) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    registry = Registry.open(settings.database_url)
    try:
        await Agent(settings, registry, this_machine()).run(stop)
    finally:
        registry.close()


if __name__ == "__main__":
    sys.exit(main())
