"""What a surface takes, as data: the allow-list, its OpenAPI schema, what is refused and why."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

Schema = Mapping[str, Any]

ANY: Schema = {}
NUMBER: Schema = {"type": ["number", "null"]}
INTEGER: Schema = {"type": ["integer", "null"]}
BOOLEAN: Schema = {"type": ["boolean", "null"]}
STRING: Schema = {"type": ["string", "null"]}
OBJECT: Schema = {"type": ["object", "null"]}
OBJECTS: Schema = {"type": ["array", "null"], "items": {"type": "object"}}
STRINGS: Schema = {"type": ["array", "null"], "items": {"type": "string"}}
INTEGERS: Schema = {"type": ["array", "null"], "items": {"type": "integer"}}
STOP: Schema = {"anyOf": [{"type": "string"}, STRINGS]}

MODEL: Schema = {"type": "string", "description": "A name that GET /v1/models lists."}

MAX_CHOICES = 128
MAX_TOP_LOGPROBS = 20
MAX_GRAMMAR_BYTES = 64 << 10
MAX_TOOLS_BYTES = 512 << 10
MAX_OPTION_BYTES = 1 << 10
CHOICES: Schema = {"type": ["integer", "null"], "minimum": 1, "maximum": MAX_CHOICES}
TOP_LOGPROBS: Schema = {"type": ["integer", "null"], "minimum": 0, "maximum": MAX_TOP_LOGPROBS}


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a field is not taken, and the values that ask for nothing and are just left out."""

    why: str
    harmless: tuple[Any, ...] = ()


@dataclass(frozen=True, slots=True)
class Fields:
    """The fields of one surface. What is in none of the three is not known at all."""

    passed: Mapping[str, Schema]
    """They go to the engine untouched."""
    taken: Mapping[str, Schema]
    """The API's, and not the engine's business: it would do nothing with them."""
    refused: Mapping[str, Refusal]
    """Dangerous, or a promise that nobody here keeps."""
    required: tuple[str, ...]
    known: frozenset[str] = field(init=False)
    limits: Mapping[str, int] = field(init=False)
    """Of fields whose JSON can only be so long: the engine compiles them to grammars."""
    integers: frozenset[str] = field(init=False)
    """Of those passed on."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "known", frozenset(self.passed) | frozenset(self.taken))
        limits = {name: size for name, size in _LIMITS.items() if name in self.passed}
        object.__setattr__(self, "limits", limits)
        integers = frozenset(
            name for name, schema in self.passed.items() if "integer" in schema.get("type", ())
        )
        object.__setattr__(self, "integers", integers)


_LIMITS = {
    "structured_outputs": MAX_GRAMMAR_BYTES,
    "response_format": MAX_GRAMMAR_BYTES,
    "text": MAX_GRAMMAR_BYTES,
    "output_config": MAX_GRAMMAR_BYTES,
    "tools": MAX_TOOLS_BYTES,
    "repetition_detection": MAX_OPTION_BYTES,
}

METADATA: Schema = {
    "type": ["object", "null"],
    "maxProperties": 16,
    "propertyNames": {"maxLength": 64},
    "additionalProperties": {"type": "string", "maxLength": 512},
    "description": "Tags of the call in the log; `task`, `episode_id` and the like have meaning.",
}

TEMPLATE_KWARGS: Schema = {
    "type": ["object", "null"],
    "additionalProperties": {"type": ["boolean", "number", "string", "null"], "maxLength": 64},
    "description": "Switches of the model's chat template, such as `enable_thinking`.",
}

OF_OPENAI: Mapping[str, Schema] = {
    "store": {**BOOLEAN, "description": "`false` keeps no bodies in the log."},
    "metadata": METADATA,
    "user": STRING,
    "safety_identifier": STRING,
    "prompt_cache_key": STRING,
    "prompt_cache_retention": STRING,
    "service_tier": STRING,
}
"""What OpenAI's endpoints have in common and an engine has no use for."""

SAMPLING: Mapping[str, Schema] = {
    "allowed_token_ids": INTEGERS,
    "bad_words": STRINGS,
    "frequency_penalty": NUMBER,
    "ignore_eos": BOOLEAN,
    "include_stop_str_in_output": BOOLEAN,
    "length_penalty": NUMBER,
    "logit_bias": {"type": ["object", "null"], "additionalProperties": {"type": "number"}},
    "logprob_token_ids": INTEGERS,
    "min_p": NUMBER,
    "min_tokens": INTEGER,
    "n": CHOICES,
    "presence_penalty": NUMBER,
    "repetition_detection": OBJECT,
    "repetition_penalty": NUMBER,
    "response_format": OBJECT,
    "return_token_ids": BOOLEAN,
    "return_tokens_as_token_ids": BOOLEAN,
    "seed": INTEGER,
    "skip_special_tokens": BOOLEAN,
    "spaces_between_special_tokens": BOOLEAN,
    "stop": STOP,
    "stop_token_ids": INTEGERS,
    "stream": BOOLEAN,
    "stream_interval": INTEGER,
    "stream_options": OBJECT,
    "structured_outputs": OBJECT,
    "temperature": NUMBER,
    "thinking_token_budget": INTEGER,
    "top_k": INTEGER,
    "top_p": NUMBER,
    "truncate_prompt_tokens": INTEGER,
    "truncation_side": STRING,
    "watermarking": BOOLEAN,
    "add_special_tokens": BOOLEAN,
    "cache_salt": {**STRING, "description": "Keeps the prompt's cache apart from other callers'."},
}
"""vLLM's parameters of chat completions and completions alike."""

PROMPT_LOGPROBS = Refusal("log-probabilities of a prompt stop an engine that serves adapters")
HOSTED = Refusal("it is kept nowhere between calls; send the whole conversation")
TOOLS_INSTEAD = Refusal("it is OpenAI's old name for `tools`", harmless=([],))

DANGEROUS: Mapping[str, Refusal] = {
    "prompt_logprobs": PROMPT_LOGPROBS,
    "prompt_embeds": Refusal("an engine would unpack tensors of the caller's making"),
    "use_beam_search": Refusal("it holds up everybody else's calls", harmless=(False,)),
    "chat_template": Refusal("a template is a program, and it would run in the engine"),
    "mm_processor_kwargs": Refusal("it decides over the engine's memory", harmless=({},)),
    "media_io_kwargs": Refusal("it decides over the engine's memory", harmless=({},)),
    "kv_transfer_params": Refusal("it is what engines tell each other", harmless=({},)),
    "ec_transfer_params": Refusal("it is what engines tell each other", harmless=({},)),
    "priority": Refusal("the gateway shares out engines fairly", harmless=(0,)),
    "request_id": Refusal("the gateway gives every call its own; see the answer's x-request-id"),
    "session_id": Refusal("engines know no tenants; use the header x-ratchet-conversation-id"),
    "vllm_xargs": Refusal("it speaks to extensions inside the engine", harmless=({},)),
    "logits_processors": Refusal("it names code to run inside the engine", harmless=([],)),
    "routed_experts_prompt_start": Refusal("engines return no routing data", harmless=(0,)),
    "return_token_offsets": Refusal("only rendering endpoints do that", harmless=(False,)),
    "mm_payload": Refusal("only rendering endpoints do that", harmless=("tensors",)),
    "return_mm_kwargs": Refusal("only rendering endpoints do that", harmless=(True,)),
    **{
        name: Refusal("the engine has dropped it; use `structured_outputs` or `response_format`")
        for name in (
            "guided_json",
            "guided_regex",
            "guided_choice",
            "guided_grammar",
            "guided_decoding_backend",
            "guided_whitespace_pattern",
        )
    },
}
"""What vLLM takes on more than one surface and must not get from a caller."""
