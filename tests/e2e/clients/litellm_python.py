"""``litellm_python.py URL KEY SLOW_KEY``: the conversation, held by litellm's client."""

import asyncio
import json
import os
import sys
from pathlib import Path
from typing import Any

os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"  # else it fetches one

import litellm
import openai

url, key, slow_key = sys.argv[1:]
schema = json.loads(Path(__file__).with_name("conversation.json").read_text())["schema"]


def ask(said: str) -> list[Any]:
    """A user's message."""
    return [{"role": "user", "content": said}]


def complete(messages: list[Any], name: str = "tiny", secret: str = key, **more: Any) -> Any:
    """One call."""
    return litellm.completion(
        model=f"openai/{name}",
        messages=messages,
        api_base=url,
        api_key=secret,
        max_retries=0,
        timeout=60,
        **more,
    )


def tell(step: str, **what: Any) -> None:
    """One line of what came out."""
    print(json.dumps({"step": step, **what}), flush=True)


plain = complete(ask("Hello"))
tell(
    "plain",
    text=plain.choices[0].message.content,
    finish=plain.choices[0].finish_reason,
    input_tokens=plain.usage.prompt_tokens,
    output_tokens=plain.usage.completion_tokens,
    request_id=plain._hidden_params["additional_headers"]["llm_provider-x-request-id"],
    header=plain._response_headers["x-request-id"],
)

chunks = list(complete(ask("Hello"), stream=True, stream_options={"include_usage": True}))
whole = litellm.stream_chunk_builder(chunks)
tell(
    "stream",
    text=whole.choices[0].message.content,
    finish=[whole.choices[0].finish_reason],
    usages=[whole.usage.completion_tokens],
    pieces=len(chunks),
)

tools = [{"type": "function", "function": {"name": "weather", "parameters": schema}}]
question = ask("How is the weather in Oslo?")
for choice in ("auto", "required", {"type": "function", "function": {"name": "weather"}}):
    said = complete(question, tools=tools, tool_choice=choice)
    (call,) = said.choices[0].message.tool_calls
    tell("tool", name=call.function.name, arguments=json.loads(call.function.arguments))
    parts = complete(question, tools=tools, tool_choice=choice, stream=True)
    (told,) = litellm.stream_chunk_builder(list(parts)).choices[0].message.tool_calls
    tell("tool streamed", name=told.function.name, arguments=json.loads(told.function.arguments))
result = {"role": "tool", "tool_call_id": call.id, "content": "12 degrees"}
after = complete([*question, said.choices[0].message, result], tools=tools)
tell("tool result", text=after.choices[0].message.content)

form = {"type": "json_schema", "json_schema": {"name": "trip", "strict": True, "schema": schema}}
trip = complete(ask("Where and when, as JSON?"), response_format=form)
tell("json", value=json.loads(trip.choices[0].message.content))

sure = complete(ask("Hello"), max_tokens=3, logprobs=True, top_logprobs=2)
content = sure.choices[0].logprobs.content
tell(
    "logprobs",
    tokens=[one.token for one in content],
    logprobs=[one.logprob for one in content],
    tops=[len(one.top_logprobs) for one in content],
)
twice = complete(ask("Hello"), n=2)
tell("choices", texts=[one.message.content for one in twice.choices])


def fails(step: str, messages: list[Any], **more: Any) -> None:
    """Which error a call ends in."""
    try:
        complete(messages, **more)
    except openai.APIStatusError as error:  # litellm's errors are the official client's, too
        headers = getattr(error, "litellm_response_headers", None) or {}
        tell(
            step,
            error=type(error).__name__,
            status=error.status_code,
            message=str(error),
            retry_after=headers.get("retry-after"),
        )
    else:
        tell(step, error=None)


fails("wrong key", ask("Hello"), secret="sk-ratchet-nobodys")
fails("unknown model", ask("Hello"), name="nobody")
fails("refused field", ask("Hello"), extra_body={"prompt_logprobs": 1})
complete(ask("Hello"), secret=slow_key)
fails("too fast", ask("Hello"), secret=slow_key)


async def cancel() -> str:
    """As an application does whose own caller is gone."""
    heard: list[str] = []
    enough = asyncio.Event()

    async def listen() -> None:
        song = await litellm.acompletion(
            model="openai/tiny",
            messages=ask("Sing"),
            api_base=url,
            api_key=key,
            max_tokens=3900,
            stream=True,
        )
        async for chunk in song:
            heard.append(chunk.choices[0].delta.content or "")
            if sum(map(len, heard)) > 60:
                enough.set()

    listening = asyncio.create_task(listen())
    await enough.wait()
    listening.cancel()
    await asyncio.wait([listening])
    return "".join(heard)


tell("cancelled", heard=asyncio.run(cancel()))
