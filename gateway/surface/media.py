"""Keeps engines from fetching what a caller names: they stand inside the network, it does not."""

from typing import Any

from gateway.errors import InvalidRequest

_LINKS = frozenset({"image_url", "audio_url", "video_url", "file_url"})
"""The keys of content parts whose text vLLM fetches, whatever the part's ``type`` says."""
_TENSORS = ("image_embeds", "audio_embeds", "video_embeds", "prompt_embeds")


def check_messages(messages: Any, param: str) -> None:
    """Of messages, or of anything like them: strings and numbers among them pass."""
    if type(messages) is not list:
        return
    for message in messages:
        if type(message) is dict:
            check_content(message.get("content"), param)
            check_content(message.get("output"), param)
        else:
            check_messages(message, param)


def check_content(content: Any, param: str) -> None:
    """Of one message's content, in the manner of OpenAI or of Anthropic. Raises InvalidRequest.

    Media come inside the request, as ``data:`` URLs or base64.
    """
    if type(content) is dict:
        _check_part(content, param)
    elif type(content) is list:
        for part in content:
            if type(part) is dict:
                _check_part(part, param)


def _check_part(part: dict[str, Any], param: str) -> None:
    if part.get("type") in _TENSORS or any(name in part for name in _TENSORS):
        raise InvalidRequest(
            "Embeddings in place of media are not taken: an engine would unpack tensors of the "
            "caller's making. Send the image or audio itself as a data: URL.",
            param=param,
        )
    for name in _LINKS & part.keys():
        link = part[name]
        _check_link(link.get("url") if type(link) is dict else link, param)
    source = part.get("source")
    if type(source) is dict and "url" in source:
        _check_link(source["url"], param)
    # Anthropic's tool results, and the outputs of OpenAI's function calls, hold parts again.
    for inner in ("content", "output"):
        if inner in part:
            check_content(part[inner], param)


def _check_link(link: Any, param: str) -> None:
    if isinstance(link, str) and link and link[:5].lower() != "data:":
        raise InvalidRequest(
            f"Media are not fetched from `{link[:64]}`: the engine would reach into its own "
            "network. Send them in the request, as a data: URL.",
            param=param,
        )
