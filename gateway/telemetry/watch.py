"""One worker's telemetry, while it serves."""

import asyncio
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager

from gateway.settings import GatewaySettings
from gateway.telemetry.board import Board, Vitals
from gateway.telemetry.telemetry import Telemetry

TICK_S = 0.1


@contextmanager
def watched(
    settings: GatewaySettings,
    *,
    vitals: Callable[[], Vitals],
    urls: Callable[[], Mapping[str, str]],
    now: Callable[[], float],
) -> Iterator[tuple[Telemetry, Board]]:
    """Where calls are counted, and where all workers' counts are read.

    Begun and ended on the event loop, whose lag it measures. ``vitals`` and ``urls`` (of the
    engines, by id) are called on other threads; ``now`` is in seconds since 1970.
    """
    with ExitStack() as stack:
        board = Board(settings.run, settings.worker, vitals=vitals, now=now)
        board.open()
        stack.callback(board.close)
        options, spans = settings.telemetry, None
        if options.endpoint is not None:
            from gateway.telemetry.export import Exporter

            spans = Exporter(options, board.counts, worker=settings.worker, urls=urls, now=now)
            stack.callback(spans.close)
        telemetry = Telemetry(board.counts, spans=spans, sample=options.sample)
        tick = _Tick(telemetry)
        stack.callback(tick.stop)
        yield telemetry, board


class _Tick:
    """Asks to be called back, and sees how late that is."""

    def __init__(self, telemetry: Telemetry) -> None:
        self._telemetry = telemetry
        self._loop = asyncio.get_running_loop()
        self._again()

    def stop(self) -> None:
        self._handle.cancel()

    def _again(self) -> None:
        self._due = self._loop.time() + TICK_S
        self._handle = self._loop.call_later(TICK_S, self._ticked)

    def _ticked(self) -> None:
        self._telemetry.lagged(max(0.0, self._loop.time() - self._due))
        self._again()
