"""``openai_python.py URL KEY SLOW_KEY``: the conversation, held by OpenAI's own client."""

import json
import sys
from pathlib import Path
from typing import Any, Literal

import openai
from pydantic import BaseModel

url, key, slow_key = sys.argv[1:]
schema = json.loads(Path(__file__).with_name("conversation.json").read_text())["schema"]
model = "tiny"
client = openai.OpenAI(base_url=url, api_key=key, max_retries=0, timeout=60)
chat = client.chat.completions


class Trip(BaseModel):
    """What is asked for as JSON."""

    city: Literal["Oslo", "Rome"]
    days: Literal[1, 2, 3]


def tell(step: str, **what: Any) -> None:
    """One line of what came out."""
    print(json.dumps({"step": step, **what}), flush=True)


def ask(said: str) -> list[Any]:
    """A user's message."""
    return [{"role": "user", "content": said}]


weather = {"type": "function", "function": {"name": "weather", "parameters": schema}}
tools: list[Any] = [weather]
question = ask("How is the weather in Oslo?")

tell("models", ids=[one.id for one in client.models.list()])

raw = chat.with_raw_response.create(model=model, messages=ask("Hello"))
plain = raw.parse()
tell(
    "plain",
    text=plain.choices[0].message.content,
    finish=plain.choices[0].finish_reason,
    input_tokens=plain.usage.prompt_tokens,
    output_tokens=plain.usage.completion_tokens,
    request_id=plain._request_id,
    header=raw.headers["x-request-id"],
)

stream = chat.create(
    model=model, messages=ask("Hello"), stream=True, stream_options={"include_usage": True}
)
chunks = list(stream)
tell(
    "stream",
    text="".join(c.delta.content or "" for chunk in chunks for c in chunk.choices),
    finish=[c.finish_reason for chunk in chunks for c in chunk.choices if c.finish_reason],
    usages=[chunk.usage.completion_tokens for chunk in chunks if chunk.usage],
    pieces=len(chunks),
    request_id=stream.response.headers["x-request-id"],
)
chunks = list(chat.create(model=model, messages=ask("Hello"), stream=True))
tell("unmetered stream", usages=[chunk.usage for chunk in chunks if chunk.usage])

named = {"type": "function", "function": {"name": "weather"}}
for choice in ("auto", "required", named):
    said = chat.create(model=model, messages=question, tools=tools, tool_choice=choice)
    (call,) = said.choices[0].message.tool_calls
    tell("tool", name=call.function.name, arguments=json.loads(call.function.arguments))
    with chat.stream(model=model, messages=question, tools=tools, tool_choice=choice) as events:
        told = events.get_final_completion()
    (streamed,) = told.choices[0].message.tool_calls
    arguments = json.loads(streamed.function.arguments)
    tell("tool streamed", name=streamed.function.name, arguments=arguments)
result = {"role": "tool", "tool_call_id": call.id, "content": "12 degrees"}
heard = [*question, said.choices[0].message, result]
after = chat.create(model=model, messages=heard, tools=tools)
tell("tool result", text=after.choices[0].message.content)

trip = chat.parse(model=model, messages=ask("Where and when, as JSON?"), response_format=Trip)
tell("json", value=trip.choices[0].message.parsed.model_dump())

sure = chat.create(model=model, messages=ask("Hello"), max_tokens=3, logprobs=True, top_logprobs=2)
tell(
    "logprobs",
    tokens=[one.token for one in sure.choices[0].logprobs.content],
    logprobs=[one.logprob for one in sure.choices[0].logprobs.content],
    tops=[len(one.top_logprobs) for one in sure.choices[0].logprobs.content],
)
twice = chat.create(model=model, messages=ask("Hello"), n=2)
tell("choices", texts=[one.message.content for one in twice.choices])

text = client.completions.create(
    model=model, prompt="<|im_start|>user\nHello<|im_end|>\n<|im_start|>assistant\n", max_tokens=40
)
tell("completion", text=text.choices[0].text)
response = client.responses.create(model=model, input="Hello", store=False)
tell("response", text=response.output_text, output_tokens=response.usage.output_tokens)
with client.responses.stream(model=model, input="Hello", store=False) as events:
    kinds = [event.type for event in events]
    tell("response streamed", text=events.get_final_response().output_text, last=kinds[-1])


def fails(step: str, asked: Any) -> None:
    """Which error a call ends in."""
    try:
        asked()
    except openai.APIStatusError as error:
        tell(
            step,
            error=type(error).__name__,
            status=error.status_code,
            param=error.param,
            message=error.message,
            retry_after=error.response.headers.get("retry-after"),
        )
    else:
        tell(step, error=None)


other = client.with_options(api_key="sk-ratchet-nobodys")
fails("wrong key", lambda: other.chat.completions.create(model=model, messages=ask("Hello")))
fails("unknown model", lambda: chat.create(model="nobody", messages=ask("Hello")))
fails(
    "refused field",
    lambda: chat.create(model=model, messages=ask("Hello"), extra_body={"prompt_logprobs": 1}),
)
fails("no embeddings", lambda: client.embeddings.create(model=model, input="Hello"))
slow = client.with_options(api_key=slow_key)
slow.chat.completions.create(model=model, messages=ask("Hello"))
fails("too fast", lambda: slow.chat.completions.create(model=model, messages=ask("Hello")))

heard = ""
with chat.create(model=model, messages=ask("Sing"), stream=True, max_tokens=3900) as song:
    for chunk in song:
        heard += chunk.choices[0].delta.content or ""
        if len(heard) > 60:
            break
tell("cancelled", heard=heard)
