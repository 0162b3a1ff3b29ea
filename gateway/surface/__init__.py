"""The endpoints that engines answer: what each takes, passes on, refuses, and says of tokens."""

from collections.abc import Mapping

from gateway.surface.body import Parsed
from gateway.surface.chat import ChatCompletions
from gateway.surface.completions import Completions
from gateway.surface.core import Surface
from gateway.surface.embeddings import Embeddings
from gateway.surface.envelope import headers_of
from gateway.surface.events import Events
from gateway.surface.hidden import NOTHING, Hidden
from gateway.surface.messages import Messages
from gateway.surface.responses import Responses

__all__ = ["NOTHING", "SURFACES", "Events", "Hidden", "Parsed", "Surface", "headers_of"]

SURFACES: Mapping[str, Surface] = {
    surface.path: surface
    for surface in (ChatCompletions(), Completions(), Responses(), Embeddings(), Messages())
}
"""By path."""
