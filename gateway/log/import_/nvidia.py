"""Rows of NVIDIA's data flywheel: a chat completion, its workload and its client."""

from typing import Annotated, Any, Final

import msgspec

from gateway.log.import_.intake import Intake, canonical, mapping, moment, text
from gateway.log.record import Invocation

ORIGIN: Final = "nvidia"
CLIENT: Final = "nvidia.client_id"
"""The tag that keeps the row's ``client_id``."""
WHEN: Final = "nvidia.timestamp"
"""The tag that keeps a ``timestamp`` that is no whole number, as JSON."""


class _Row(msgspec.Struct, forbid_unknown_fields=True):
    timestamp: int | float | str
    workload_id: Annotated[str, msgspec.Meta(min_length=1)]
    client_id: str
    request: msgspec.Raw
    response: msgspec.Raw


_decoder = msgspec.json.Decoder(_Row)
_object = msgspec.json.Decoder(dict[str, Any])


def records(line: bytes, into: Intake) -> tuple[Invocation]:
    """The invocation of one row; its bodies are kept as they are. Raises msgspec.DecodeError."""
    row = _decoder.decode(line)
    request = _object.decode(row.request)
    _object.decode(row.response)
    tags = {CLIENT: row.client_id}
    if not isinstance(row.timestamp, int):
        tags[WHEN] = text(row.timestamp)
    invocation = into.invocation(
        canonical(msgspec.json.decode(line)),
        ts=moment(row.timestamp),
        model=str(request.get("model") or row.workload_id),
        asked=request,
        request=row.request,
        metadata={**mapping(request.get("metadata")), **tags},
        task=row.workload_id,
        provider_name="nvidia",
        stream=bool(request.get("stream")),
        status=200,
        response=row.response,
    )
    return (invocation,)
