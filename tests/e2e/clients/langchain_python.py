"""``langchain_python.py URL KEY SLOW_KEY``: the conversation, held by LangChain's ChatOpenAI."""

import json
import sys
from pathlib import Path
from typing import Any

import openai
from langchain_core.messages import AIMessageChunk, HumanMessage, ToolMessage
from langchain_openai import ChatOpenAI

url, key, slow_key = sys.argv[1:]
schema = json.loads(Path(__file__).with_name("conversation.json").read_text())["schema"]


def model(name: str = "tiny", secret: str = key, **more: Any) -> ChatOpenAI:
    """What an application makes once."""
    return ChatOpenAI(model=name, base_url=url, api_key=secret, max_retries=0, timeout=60, **more)


def tell(step: str, **what: Any) -> None:
    """One line of what came out."""
    print(json.dumps({"step": step, **what}), flush=True)


plain = model(include_response_headers=True).invoke("Hello")
headers = plain.response_metadata["headers"]
tell(
    "plain",
    text=plain.content,
    finish=plain.response_metadata["finish_reason"],
    input_tokens=plain.usage_metadata["input_tokens"],
    output_tokens=plain.usage_metadata["output_tokens"],
    request_id=headers["x-request-id"],
    header=headers["x-request-id"],
)

chunks = list(model(stream_usage=True).stream("Hello"))
whole = AIMessageChunk(content="")
for chunk in chunks:
    whole += chunk
tell(
    "stream",
    text=whole.content,
    finish=[whole.response_metadata["finish_reason"]],
    usages=[whole.usage_metadata["output_tokens"]],
    pieces=len(chunks),
)

weather = {"type": "function", "function": {"name": "weather", "parameters": schema}}
question = HumanMessage("How is the weather in Oslo?")
for choice in ("auto", "required", "weather"):
    able = model().bind_tools([weather], tool_choice=choice)
    said = able.invoke([question])
    (call,) = said.tool_calls
    tell("tool", name=call["name"], arguments=call["args"])
    streamed = AIMessageChunk(content="")
    for chunk in able.stream([question]):
        streamed += chunk
    (told,) = streamed.tool_calls
    tell("tool streamed", name=told["name"], arguments=told["args"])
result = ToolMessage("12 degrees", tool_call_id=call["id"])
tell("tool result", text=model().bind_tools([weather]).invoke([question, said, result]).content)

trip = {"title": "trip", "description": "Where and when.", **schema}
for method in ("json_schema", "function_calling"):
    asked = "Where and when, as JSON?" if method == "json_schema" else question.content
    value = model().with_structured_output(trip, method=method, strict=True).invoke(asked)
    tell("json", value=value)

sure = model(logprobs=True, top_logprobs=2, max_tokens=3).invoke("Hello")
content = sure.response_metadata["logprobs"]["content"]
tell(
    "logprobs",
    tokens=[one["token"] for one in content],
    logprobs=[one["logprob"] for one in content],
    tops=[len(one["top_logprobs"]) for one in content],
)
twice = model(n=2).generate([[HumanMessage("Hello")]])
tell("choices", texts=[one.text for one in twice.generations[0]])
answered = model(use_responses_api=True, store=False).invoke("Hello")
tell("response", text=answered.text, output_tokens=answered.usage_metadata["output_tokens"])


def fails(step: str, able: ChatOpenAI) -> None:
    """Which error a call ends in."""
    try:
        able.invoke("Hello")
    except openai.APIStatusError as error:
        tell(
            step,
            error=[one.__name__ for one in type(error).__mro__],
            status=error.status_code,
            param=error.param,
            message=error.message,
            retry_after=error.response.headers.get("retry-after"),
        )
    else:
        tell(step, error=None)


fails("wrong key", model(secret="sk-ratchet-nobodys"))
fails("unknown model", model("nobody"))
fails("refused field", model(extra_body={"prompt_logprobs": 1}))
model(secret=slow_key).invoke("Hello")
fails("too fast", model(secret=slow_key))

heard = ""
song = model(max_tokens=3900).stream("Sing")
for chunk in song:
    heard += chunk.content
    if len(heard) > 60:
        break
song.close()
tell("cancelled", heard=heard)
