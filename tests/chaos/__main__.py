"""The long storm: everything that can go wrong with the log does, and nothing may be missing.

    make chaos-log [JSON=FILE]

Prints what it counted; ends with 1 when the log has lost, doubled or invented anything.
"""

import argparse
import asyncio
import json
import logging
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from gateway.log.cipher import KEY
from gateway.log.spool import Durability
from tests.chaos import full_log, small_disk
from tests.chaos.corruption import Trial, trials
from tests.chaos.cut_streams import cut_streams
from tests.chaos.storm import SECRET, Campaign, Storm, say

PORT = 22000
CAMPAIGNS = (
    (Durability.NONE, False, 110),
    (Durability.INTERVAL, True, 110),
    (Durability.GROUP, False, 110),
)
CORRUPTIONS = ((140, {}), (60, {KEY: SECRET}))
STREAMS = 1000
FULL_LOGS = {"wal": (8, 16), "checkpoint": (70, 120)}


def kills(folder: Path, seed: int) -> dict[str, Any]:
    """Every campaign, one after the other."""
    told: dict[str, Any] = {"kills": 0, "acked": 0, "lost": 0, "doubled": 0, "unacked": 0}
    told |= {"killed": {}, "in_checkpoint": 0}
    for durability, encrypted, number in CAMPAIGNS:
        campaign = Campaign(durability, encrypted, number, seed, PORT, PORT + 1)
        storm = Storm(campaign, folder / campaign.name)
        verdict = asyncio.run(storm.run())
        say(f"{campaign.name}: {verdict.acked} acknowledged, {len(verdict.lost)} lost")
        told["kills"] += sum(storm.killed.values())
        told["acked"] += verdict.acked
        told["lost"] += len(verdict.lost)
        told["doubled"] += verdict.doubled
        told["unacked"] += verdict.unacked
        told["in_checkpoint"] += storm.in_checkpoint
        told["killed"][campaign.name] = storm.killed
    return told


def corruptions(folder: Path, seed: int) -> dict[str, Any]:
    """Every damage, in plain folders and in encrypted ones."""
    tried: list[Trial] = []
    for number, env in CORRUPTIONS:
        place = folder / f"corruptions-{len(tried)}"
        tried += trials(place, number=number, seed=seed + len(tried), env=env)
        say(f"{len(tried)} corruptions, {sum(one.booted for one in tried)} booted")
    for one in tried:
        if not one.is_clean:
            say(f"not clean: {one.seed} {one.file} {one.kind} {one.beyond[:3]} {one.said[-500:]}")
    return {
        "tried": len(tried),
        "booted": sum(one.booted for one in tried),
        "lost": sum(one.lost for one in tried),
        "lost_beyond_damage": sum(len(one.beyond) for one in tried),
        "unnamed": sum(len(one.unnamed) for one in tried),
        "doubled": sum(one.doubled for one in tried),
        "resurrected": sum(one.resurrected for one in tried),
    }


def streams(folder: Path, seed: int) -> dict[str, Any]:
    """Streams cut at random."""
    told = asyncio.run(cut_streams(folder / "streams", number=STREAMS, seed=seed, port=PORT + 2))
    for wrong in told.wrong:
        say(f"wrong: {wrong}")
    return {"tried": told.tried, "recorded": told.recorded, "cut": told.cut}


def full_disks(folder: Path) -> dict[str, Any] | None:
    """The log's disk full at its write-ahead file and at its checkpoint; None: no mounts here."""
    command = small_disk.unshare(folder / "mount")
    if command is None:
        return None
    told = {}
    for name, (free, written) in FULL_LOGS.items():
        place = folder / f"full-{name}"
        place.mkdir()
        module = full_log.__name__
        told[name] = json.loads(small_disk.run(command, module, place, str(free), str(written)))
        say(f"disk full at {name}: {told[name]}")
    return told


def is_clean(figures: dict[str, Any]) -> bool:
    """Whether nothing is missing that should be there, and nothing there that should not."""
    corrupted, cut, disks = (figures[key] for key in ("corruptions", "cut_streams", "full_disks"))
    harm = ("lost_beyond_damage", "unnamed", "doubled", "resurrected")
    return (
        not figures["lost"]
        and not figures["doubled"]
        and corrupted["booted"] == corrupted["tried"]
        and not any(corrupted[key] for key in harm)
        and cut["recorded"] == cut["tried"]
        and all(
            one["drained"] and not one["verdict"]["lost"] and not one["verdict"]["doubled"]
            for one in (disks or {}).values()
        )
    )


def main() -> None:
    logging.basicConfig(level=logging.CRITICAL)
    parser = argparse.ArgumentParser(prog="python -m tests.chaos")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--seed", type=int, default=7)
    told = parser.parse_args()
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="chaos-") as place:
        folder = Path(place)
        figures = kills(folder, told.seed)
        figures["corruptions"] = corruptions(folder, told.seed)
        figures["cut_streams"] = streams(folder, told.seed)
        figures["full_disks"] = full_disks(folder)
    figures["seconds"] = round(time.monotonic() - started)
    text = json.dumps(figures, indent=1)
    sys.stdout.write(text + "\n")
    if told.json:
        told.json.write_text(text + "\n")
    sys.exit(not is_clean(figures))


if __name__ == "__main__":
    main()
