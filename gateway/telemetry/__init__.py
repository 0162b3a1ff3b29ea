"""What the gateway tells of its calls: counters for Prometheus, spans and metrics over OTLP."""

from gateway.telemetry.board import Board, Vitals
from gateway.telemetry.telemetry import Telemetry
from gateway.telemetry.trace import UNTRACED, Trace
from gateway.telemetry.watch import watched

__all__ = ["UNTRACED", "Board", "Telemetry", "Trace", "Vitals", "watched"]
