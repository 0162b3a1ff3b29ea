"""``anthropic_python.py URL KEY SLOW_KEY``: the conversation, held by Anthropic's client."""

import json
import sys
from pathlib import Path
from typing import Any

import anthropic

url, key, slow_key = sys.argv[1:]
schema = json.loads(Path(__file__).with_name("conversation.json").read_text())["schema"]
client = anthropic.Anthropic(
    base_url=url.removesuffix("/v1"), api_key=key, max_retries=0, timeout=60
)


def tell(step: str, **what: Any) -> None:
    """One line of what came out."""
    print(json.dumps({"step": step, **what}), flush=True)


def asked(said: str = "Hello", **more: Any) -> dict[str, Any]:
    """A request."""
    messages = [{"role": "user", "content": said}]
    return {"model": "tiny", "max_tokens": 200, "messages": messages} | more


raw = client.messages.with_raw_response.create(**asked())
plain = raw.parse()
tell(
    "plain",
    text=plain.content[0].text,
    finish=plain.stop_reason,
    input_tokens=plain.usage.input_tokens,
    output_tokens=plain.usage.output_tokens,
    request_id=plain._request_id,
    header=raw.headers["x-request-id"],
)
with client.messages.stream(**asked()) as events:
    pieces = list(events.text_stream)
    final = events.get_final_message()
tell(
    "stream",
    text="".join(pieces),
    finish=[final.stop_reason],
    usages=[final.usage.output_tokens],
    pieces=len(pieces),
)

tools = [{"name": "weather", "input_schema": schema}]
for choice in ({"type": "auto"}, {"type": "any"}, {"type": "tool", "name": "weather"}):
    able = asked("How is the weather in Oslo?", tools=tools, tool_choice=choice)
    said = client.messages.create(**able)
    (call,) = [block for block in said.content if block.type == "tool_use"]
    tell("tool", name=call.name, arguments=call.input)
    with client.messages.stream(**able) as events:
        told = events.get_final_message()
    (streamed,) = [block for block in told.content if block.type == "tool_use"]
    tell("tool streamed", name=streamed.name, arguments=streamed.input)
result = {"type": "tool_result", "tool_use_id": call.id, "content": "12 degrees"}
heard = [
    *able["messages"],
    {"role": "assistant", "content": said.content},
    {"role": "user", "content": [result]},
]
after = client.messages.create(**asked(messages=heard, tools=tools))
tell("tool result", text=after.content[0].text)


def fails(step: str, client: anthropic.Anthropic, **more: Any) -> None:
    """Which error a call ends in."""
    try:
        client.messages.create(**asked(**more))
    except anthropic.APIStatusError as error:
        tell(
            step,
            error=type(error).__name__,
            status=error.status_code,
            message=error.body["error"]["message"],
            retry_after=error.response.headers.get("retry-after"),
        )
    else:
        tell(step, error=None)


fails("wrong key", client.with_options(api_key="sk-ratchet-nobodys"))
fails("unknown model", client, model="nobody")
fails("refused field", client, extra_body={"prompt_logprobs": 1})
slow = client.with_options(api_key=slow_key)
slow.messages.create(**asked())
fails("too fast", slow)

heard = ""
with client.messages.stream(**asked("Sing", max_tokens=3900)) as song:
    for text in song.text_stream:
        heard += text
        if len(heard) > 60:
            break
tell("cancelled", heard=heard)
