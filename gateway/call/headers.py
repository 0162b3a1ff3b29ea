"""The headers of answers."""

from collections.abc import Iterable

from gateway.errors import GatewayError
from gateway.http.exchange import Headers
from gateway.log.record import new_id
from gateway.routing import Target
from gateway.surface import headers_of

_JSON = ((b"content-type", b"application/json"),)
_EVENTS = (
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache"),
)
_REMEMBERED = 1000

_answering: dict[tuple[str, str, str], Headers] = {}
"""Who answers, said in the same bytes again and again."""


def of_answer(  # noqa: PLR0913 - what there is to say
    target: Target,
    request_id: str,
    *,
    id_header: bytes | None,
    took_s: float,
    overhead_s: float,
    streams: bool,
) -> Headers:
    """What every answer says of itself; ``request_id`` is the invocation's, in plain hex.

    ``id_header`` is where else the surface's own clients look for it.
    """
    key = (target.alias, target.model, target.engine_id)
    hexed = request_id
    told = f"{hexed[:8]}-{hexed[8:12]}-{hexed[12:16]}-{hexed[16:20]}-{hexed[20:]}".encode()
    lines = [
        *(_EVENTS if streams else _JSON),
        (b"x-request-id", told),
        (b"openai-processing-ms", b"%d" % (took_s * 1000)),
        (b"x-ratchet-overhead-ms", b"%.3f" % (overhead_s * 1000)),
        *(_answering.get(key) or _remembered(key, target)),
    ]
    if id_header is not None:
        lines.append((id_header, told))
    return lines


def of_error(error: GatewayError) -> Headers:
    """What an error says beside that."""
    return list(_encoded(headers_of(error).items()))


def of_refusal(error: GatewayError, id_header: bytes | None) -> Headers:
    """All that an error says when there was no call yet. Its id names nothing in the log."""
    told = str(new_id()).encode()
    ids = [(name, told) for name in (b"x-request-id", id_header) if name is not None]
    return [*_JSON, *ids, *of_error(error)]


def _remembered(key: tuple[str, str, str], target: Target) -> Headers:
    if len(_answering) >= _REMEMBERED:
        _answering.clear()
    said = {"x-ratchet-alias": target.alias, "x-ratchet-engine": target.engine_id}
    if target.adapter is not None:
        said |= {"x-ratchet-adapter": target.adapter, "x-ratchet-version": str(target.version)}
    headers = _answering[key] = list(_encoded(said.items()))
    return headers


def _encoded(headers: Iterable[tuple[str, str]]) -> Iterable[tuple[bytes, bytes]]:
    return ((name.encode(), value.encode("utf-8", "replace")) for name, value in headers)
