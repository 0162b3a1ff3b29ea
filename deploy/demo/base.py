"""The demo's base model: a tokenizer and a 2 M-parameter Qwen3, trained from scratch.

The only module of the demo that imports torch. The same seed on the same kind of CPU gives
the same weights: the number of steps is fixed and so is the number of threads.
"""

import itertools
import json
import random
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from schema import outdated
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from torch.optim.lr_scheduler import LambdaLR
from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM
from transformers.utils import logging as transformers_logging
from world import Split, requests

PAD, START, END = "<|endoftext|>", "<|im_start|>", "<|im_end|>"
IGNORED = -100
"""The label that ``cross_entropy`` leaves out: prompts and padding are not learnt."""

CHAT_TEMPLATE = """\
{% for m in messages %}<|im_start|>{{ m['role'] }}
{% if m['content'] %}{{ m['content'] }}{% endif %}{% for c in (m.get('tool_calls') or []) %}\
<tool_call>
{"name": "{{ c['function']['name'] }}", "arguments": {{ c['function']['arguments'] \
if c['function']['arguments'] is string else c['function']['arguments'] | tojson }}}
</tool_call>{% endfor %}<|im_end|>
{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant
{% endif %}"""
"""The model is too small to read schemas: the template ignores ``tools``."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """How large the base is and how it learns. Part of the cache's key."""

    vocabulary: int = 1280
    hidden: int = 192
    layers: int = 4
    init_std: float = 0.05
    steps: int = 380
    batch: int = 32
    matrix_rate: float = 0.02
    """Muon's, for the matrices: it needs half of AdamW's steps here."""
    rest_rate: float = 3e-3
    """AdamW's, for embeddings and norms."""
    warmup: int = 20
    steady: float = 0.5
    """The share of the steps after which the rates fall to zero."""
    threads: int = 2

    def pace(self, step: int) -> float:
        """The factor on both rates before step ``step``, counted from 0."""
        rising = (step + 1) / self.warmup
        falling = (self.steps - step) / (self.steps * (1 - self.steady))
        return max(0.02, min(1.0, rising, falling))


Example = tuple[str, str]
"""The rendered prompt and the answer that follows it, both as the chat template writes them."""


def examples(seed: int) -> Iterator[Example]:
    """Endless examples in the outdated schema."""
    rng = random.Random(f"{seed}:outdated")
    for request in requests(Split.BASE, seed):
        answer = json.dumps(outdated(request.call, rng), ensure_ascii=False)
        prompt = f"{START}user\n{request.text}{END}\n{START}assistant\n"
        yield prompt, f"<tool_call>\n{answer}\n</tool_call>{END}"


def train(out: Path, *, seed: int, recipe: Recipe) -> None:
    """Write a model directory that vLLM serves. Takes under two minutes on two free cores."""
    transformers_logging.disable_progress_bar()
    torch.set_num_threads(recipe.threads)
    torch.manual_seed(seed)
    source = examples(seed)
    tokenizer = _tokenizer(list(itertools.islice(source, 3000)), recipe)
    # Eager attention: at this size it is a third faster on a CPU than the fused kernel.
    model = Qwen3ForCausalLM._from_config(_config(recipe, tokenizer), attn_implementation="eager")
    _lean_to_copying(model)
    _fit(model, tokenizer, source, recipe)
    model.to(torch.bfloat16).save_pretrained(out)
    tokenizer.save_pretrained(out)


def _tokenizer(corpus: list[Example], recipe: Recipe) -> PreTrainedTokenizerFast:
    """A byte-level BPE made for copying: a word, and a pair of digits, is the same token in a
    request and in an answer, because no space and no quote ever sticks to it.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(r"[\p{L}_]+|\d\d?|[^\p{L}_\d]+"), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=recipe.vocabulary,
        special_tokens=[PAD, START, END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    texts = (text.replace(START, "").replace(END, "") for pair in corpus for text in pair)
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.add_tokens(["<tool_call>", "</tool_call>"])
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token=PAD, eos_token=END)
    fast.chat_template = CHAT_TEMPLATE
    return fast


def _config(recipe: Recipe, tokenizer: PreTrainedTokenizerFast) -> Qwen3Config:
    return Qwen3Config(
        vocab_size=len(tokenizer),
        hidden_size=recipe.hidden,
        intermediate_size=3 * recipe.hidden,
        num_hidden_layers=recipe.layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=64,
        max_position_embeddings=1024,
        initializer_range=recipe.init_std,
        tie_word_embeddings=True,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=None,
    )


def _lean_to_copying(model: Qwen3ForCausalLM) -> None:
    """Start with heads that look for similar tokens and pass on what they see.

    Queries begin close to their keys, and outputs as the transpose of values ("mimetic
    initialization", Trockman and Kolter 2023, arXiv 2305.09828). Slots are copied from the
    request; from the usual start the model needs twice the steps to find out how.
    """
    size = model.config.head_dim
    shared = model.config.num_attention_heads // model.config.num_key_value_heads
    with torch.no_grad():
        for layer in model.model.layers:
            attention = layer.self_attn
            keys, queries = attention.k_proj.weight, attention.q_proj.weight
            values, outputs = attention.v_proj.weight, attention.o_proj.weight
            torch.nn.init.orthogonal_(values)
            for head in range(model.config.num_attention_heads):
                mine = slice(head * size, (head + 1) * size)
                group = slice(head // shared * size, (head // shared + 1) * size)
                queries[mine] = queries[mine] / 2 + keys[group]
                outputs[:, mine] = values[group].T / 4


def _fit(
    model: Qwen3ForCausalLM,
    tokenizer: PreTrainedTokenizerFast,
    source: Iterator[Example],
    recipe: Recipe,
) -> None:
    optimizers = _optimizers(model, recipe)
    schedules = [LambdaLR(optimizer, recipe.pace) for optimizer in optimizers]
    began = time.monotonic()
    batches = _batches(source, recipe)
    for step in range(1, recipe.steps + 1):
        inputs_BT, labels_BT = _batch(next(batches), tokenizer)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            logits_BTV = model(input_ids=inputs_BT).logits
        loss = torch.nn.functional.cross_entropy(
            logits_BTV[:, :-1].flatten(0, 1).float(), labels_BT[:, 1:].flatten()
        )
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for moved in (*optimizers, *schedules):
            moved.step()
        model.zero_grad(set_to_none=True)
        _report(step, recipe.steps, loss.item(), time.monotonic() - began)


def _optimizers(model: Qwen3ForCausalLM, recipe: Recipe) -> list[torch.optim.Optimizer]:
    matrices = [p for name, p in model.named_parameters() if p.ndim == 2 and "embed" not in name]
    rest = [p for name, p in model.named_parameters() if p.ndim != 2 or "embed" in name]
    return [
        torch.optim.Muon(matrices, lr=recipe.matrix_rate, weight_decay=0.01),
        torch.optim.AdamW(rest, lr=recipe.rest_rate, betas=(0.9, 0.95), weight_decay=0.0),
    ]


def _batches(source: Iterator[Example], recipe: Recipe) -> Iterator[list[Example]]:
    """Batches of about equally long examples: a quarter of the time went into padding."""
    rng = random.Random(recipe.steps)
    while True:
        pool = sorted(
            (next(source) for _ in range(8 * recipe.batch)), key=lambda e: len("".join(e))
        )
        starts = list(range(0, len(pool), recipe.batch))
        rng.shuffle(starts)
        for start in starts:
            yield pool[start : start + recipe.batch]


def _batch(
    batch: list[Example], tokenizer: PreTrainedTokenizerFast
) -> tuple[torch.Tensor, torch.Tensor]:
    """Token ids and labels, padded on the right, where a causal model never looks."""
    prompts = tokenizer([prompt for prompt, _ in batch])["input_ids"]
    answers = tokenizer([answer for _, answer in batch])["input_ids"]
    longest = max(len(p) + len(a) for p, a in zip(prompts, answers, strict=True))
    inputs_BT = torch.full((len(batch), longest), tokenizer.pad_token_id)
    labels_BT = torch.full((len(batch), longest), IGNORED)
    for i, (prompt, answer) in enumerate(zip(prompts, answers, strict=True)):
        end = len(prompt) + len(answer)
        inputs_BT[i, :end] = torch.tensor(prompt + answer)
        labels_BT[i, len(prompt) : end] = torch.tensor(answer)
    return inputs_BT, labels_BT


def _report(step: int, steps: int, loss: float, spent_s: float) -> None:
    if step % 20 and step != steps:
        return
    left_s = spent_s / step * (steps - step)
    print(f"base model: step {step}/{steps}, loss {loss:.3f}, {left_s:.0f} s left", file=sys.stderr)
