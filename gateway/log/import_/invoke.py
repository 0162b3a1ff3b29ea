"""InvokeModel's bodies: whichever API the model behind it speaks."""

from collections.abc import Iterable, Mapping
from typing import Any, Final, Protocol

from gateway.errors import BadRow
from gateway.log import assemble
from gateway.log.import_ import anthropic, converse
from gateway.log.import_.chat import completion, put
from gateway.log.import_.intake import text

CHAT: Final = "chat"
TEXT: Final = "text_completion"


class Dialect(Protocol):
    """How one API's bodies become Chat Completions. All of it raises BadRow."""

    def request(self, body: Mapping[str, Any]) -> dict[str, Any]: ...

    def response(self, body: Mapping[str, Any]) -> dict[str, Any]: ...

    def folded(self, chunks: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
        """The body that the chunks of a stream add up to."""
        ...


def dialect_of(body: Mapping[str, Any]) -> tuple[Dialect, str]:
    """By the request's shape, as a model's name may be an inference profile's.

    Also which operation it is. Raises BadRow for a shape we do not know, embeddings among them.
    """
    if isinstance(body.get("prompt"), str):
        return _Text(), TEXT
    if not isinstance(body.get("messages"), list):
        raise BadRow(f"an InvokeModel body of no known shape: {', '.join(sorted(body)) or 'empty'}")
    if "anthropic_version" in body:
        return anthropic, CHAT
    if "inferenceConfig" in body or "schemaVersion" in body or _untyped(body["messages"]):
        return converse, CHAT
    return _OpenAI(), CHAT


def _untyped(messages: list[Any]) -> bool:
    """Whether content comes in Nova's blocks, which have no ``type``."""
    contents = (message.get("content") for message in messages if isinstance(message, Mapping))
    first = next((one for one in contents if isinstance(one, list) and one), None)
    return first is not None and isinstance(first[0], Mapping) and "type" not in first[0]


class _OpenAI:
    """Bodies that are Chat Completions already."""

    def request(self, body: Mapping[str, Any]) -> dict[str, Any]:
        return dict(body)

    def response(self, body: Mapping[str, Any]) -> dict[str, Any]:
        if not isinstance(body.get("choices"), list):
            raise BadRow("the answer holds no choices")
        return dict(body)

    def folded(self, chunks: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
        sse = "".join(f"data: {text(chunk)}\n\n" for chunk in chunks)
        return assemble.completion(sse) or {}


class _Text:
    """Llama's and Mistral's text bodies: the prompt, template and all, is one user message."""

    _SETTINGS: Final = {
        "max_gen_len": "max_tokens",
        "max_tokens": "max_tokens",
        "temperature": "temperature",
        "top_p": "top_p",
        "top_k": "top_k",
        "stop": "stop",
    }

    def request(self, body: Mapping[str, Any]) -> dict[str, Any]:
        told: dict[str, Any] = {"messages": [{"role": "user", "content": body["prompt"]}]}
        for theirs, ours in self._SETTINGS.items():
            put(told, ours, body.get(theirs))
        return told

    def response(self, body: Mapping[str, Any]) -> dict[str, Any]:
        answers = body.get("outputs") or [{**body, "text": body.get("generation")}]
        answer = answers[0]
        if not isinstance(answer.get("text"), str):
            raise BadRow("the answer holds no text")
        return completion(
            {"role": "assistant", "content": answer["text"]},
            converse.stop(answer.get("stop_reason"), {"stop": "stop", "length": "length"}),
            prompt=body.get("prompt_token_count"),
            answer=body.get("generation_token_count"),
        )

    def folded(self, chunks: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
        body: dict[str, Any] = {"generation": ""}
        for chunk in chunks:
            part = (chunk.get("outputs") or [chunk])[0]
            body["generation"] += part.get("text") or part.get("generation") or ""
            for key in ("stop_reason", "prompt_token_count", "generation_token_count"):
                put(body, key, part.get(key))
        return body
