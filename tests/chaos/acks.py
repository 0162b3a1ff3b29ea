"""What processes were promised, noted down so that it survives them."""

import os
from pathlib import Path


class Acks:
    """One process' acknowledgements: an id and the mark its row must bear, a line each.

    A line is one ``write()``: it survives the process, like the record it speaks of.
    """

    def __init__(self, file: Path) -> None:
        file.parent.mkdir(parents=True, exist_ok=True)
        self._fd = os.open(file, os.O_CREAT | os.O_APPEND | os.O_WRONLY, 0o600)

    def acknowledge(self, record_id: object, mark: str) -> None:
        """Only after the record is promised to be in the log."""
        os.write(self._fd, f"{record_id} {mark}\n".encode())

    def close(self) -> None:
        os.close(self._fd)


def acknowledged(folder: Path) -> dict[str, str]:
    """The marks by id of every ``Acks`` in ``folder``; a line its writer died in is no promise."""
    marks: dict[str, str] = {}
    for file in sorted(folder.iterdir()):
        whole = file.read_text().rpartition("\n")[0]
        for line in whole.splitlines():
            record_id, _, mark = line.partition(" ")
            marks[record_id] = mark
    return marks
