"""The settings of a PEFT adapter: what vLLM can serve of them, in one canonical form."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from serving.errors import ArtifactInvalid
from serving.weights import Pair

RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
"""What vLLM takes for --max-lora-rank."""

_OUTPUT_OR_EMBEDDING = frozenset({"lm_head", "embed_tokens", "embed_in", "embed_out", "wte", "wpe"})

# Inits that leave the base as it is; all others change it when PEFT loads the adapter.
_PLAIN_INITS = frozenset({"gaussian", "eva", "orthogonal", "mica", "lora_ga"})

# Settings that change what an adapter computes in ways vLLM does not follow.
_UNSERVABLE = (
    "use_dora",
    "lora_bias",
    "modules_to_save",
    "trainable_token_indices",
    "target_parameters",
    "layer_replication",
    "alora_invocation_tokens",
    "use_bdlora",
    "use_qalora",
    "rank_pattern",
    "alpha_pattern",
    "fan_in_fan_out",
)


@dataclass(frozen=True, slots=True)
class LoraSettings:
    """What, besides the weights, decides how an adapter answers."""

    rank: int
    alpha: float
    rslora: bool

    def canonical(self, kinds: Sequence[str]) -> bytes:
        """The ``adapter_config.json`` that is stored: nothing of the trainer's machine in it."""
        return json.dumps(
            {
                "bias": "none",
                "lora_alpha": self.alpha,
                "peft_type": "LORA",
                "r": self.rank,
                "target_modules": sorted(kinds),
                "task_type": "CAUSAL_LM",
                "use_dora": False,
                "use_rslora": self.rslora,
            },
            sort_keys=True,
            indent=1,
        ).encode()


def read_settings(path: Path) -> LoraSettings:
    """The settings in an ``adapter_config.json``; ArtifactInvalid for what vLLM cannot serve."""
    config = read_json(path)
    if config.get("peft_type") != "LORA":
        raise ArtifactInvalid(f"{path}: peft_type is {config.get('peft_type')!r}; only LORA")
    for name in _UNSERVABLE:
        if config.get(name):
            raise ArtifactInvalid(f"{path}: vLLM cannot serve {name}={config[name]!r}")
    if config.get("bias", "none") != "none":
        raise ArtifactInvalid(f"{path}: vLLM cannot serve bias={config['bias']!r}")
    init = config.get("init_lora_weights", True)
    if isinstance(init, str) and init.lower() not in _PLAIN_INITS:
        raise ArtifactInvalid(f"{path}: init_lora_weights={init!r} changes the base itself")
    rank, alpha = config.get("r"), config.get("lora_alpha")
    if not isinstance(rank, int) or isinstance(rank, bool) or rank <= 0:
        raise ArtifactInvalid(f"{path}: r must be a positive integer, not {rank!r}")
    if not isinstance(alpha, int | float) or alpha <= 0:
        raise ArtifactInvalid(f"{path}: lora_alpha must be a positive number, not {alpha!r}")
    return LoraSettings(rank=rank, alpha=float(alpha), rslora=bool(config.get("use_rslora")))


def check_pairs(
    pairs: Sequence[Pair], settings: LoraSettings, base: Mapping[str, Any], max_rank: int
) -> None:
    """ArtifactInvalid unless the weights fit the settings, the base and the engine's rank."""
    if settings.rank > max_rank:
        raise ArtifactInvalid(
            f"rank {settings.rank} is above the engine's {max_rank}: train a smaller one or start "
            f"vLLM with max-lora-rank of one of {', '.join(map(str, RANKS))}"
        )
    widths = _widths(base)
    layers = base.get("num_hidden_layers")
    for pair in pairs:
        if _OUTPUT_OR_EMBEDDING & set(pair.module.split(".")):
            raise ArtifactInvalid(f"{pair.module}: vLLM serves no adapters of embeddings or heads")
        if len(pair.a.shape) != 2 or len(pair.b.shape) != 2:
            raise ArtifactInvalid(f"{pair.module}: lora_A and lora_B must be matrices")
        if (pair.a.shape[0], pair.b.shape[1]) != (settings.rank, settings.rank):
            raise ArtifactInvalid(
                f"{pair.module}: shapes {pair.a.shape} and {pair.b.shape} are not of rank "
                f"{settings.rank}"
            )
        fits = widths.get(pair.kind)
        if fits is not None and (pair.a.shape[1], pair.b.shape[0]) != fits:
            raise ArtifactInvalid(
                f"{pair.module} maps {pair.a.shape[1]} to {pair.b.shape[0]}, the base's maps "
                f"{fits[0]} to {fits[1]}: it was trained on another base"
            )
        if pair.layer is not None and layers is not None and pair.layer >= layers:
            raise ArtifactInvalid(f"{pair.module}: the base has only {layers} layers")


def _widths(base: Mapping[str, Any]) -> Mapping[str, tuple[int, int]]:
    """Inputs and outputs of the usual linear layers; empty when the config does not tell."""
    hidden, inner = base.get("hidden_size"), base.get("intermediate_size")
    heads = base.get("num_attention_heads")
    if not (isinstance(hidden, int) and isinstance(inner, int) and isinstance(heads, int)):
        return {}
    if base.get("num_experts") or base.get("num_local_experts"):
        return {}  # experts have widths of their own; vLLM checks those at load
    per_head = base.get("head_dim") or hidden // heads
    queries = heads * per_head
    keys = (base.get("num_key_value_heads") or heads) * per_head
    # Gated attention doubles what q_proj puts out; then only vLLM knows.
    attention = (
        {}
        if base.get("attn_output_gate")
        else {
            "q_proj": (hidden, queries),
            "k_proj": (hidden, keys),
            "v_proj": (hidden, keys),
            "o_proj": (queries, hidden),
        }
    )
    return attention | {
        "gate_proj": (hidden, inner),
        "up_proj": (hidden, inner),
        "down_proj": (inner, hidden),
    }


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file; ArtifactInvalid when it is missing or something else."""
    try:
        value = json.loads(path.read_text())
    except FileNotFoundError as error:
        raise ArtifactInvalid(f"{path} is missing") from error
    except ValueError as error:
        raise ArtifactInvalid(f"{path} is not JSON: {error}") from error
    if not isinstance(value, dict):
        raise ArtifactInvalid(f"{path} holds no JSON object")
    return value
