"""What the gateway tells of its calls: counters for Prometheus, spans and metrics over OTLP."""

from gateway.telemetry.telemetry import Telemetry
from gateway.telemetry.trace import UNTRACED, Trace

__all__ = ["UNTRACED", "Telemetry", "Trace"]
