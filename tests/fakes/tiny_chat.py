"""``python tests/fakes/tiny_chat.py CONVERSATION OUT``: a real model that learns it by heart.

It takes some seconds, and answers the last message that it gets. Every token but the few special
ones is one byte, so that the length of an answer in ASCII is its tokens. The song has no end.
"""

import json
import sys
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM
from transformers.utils import logging as transformers_logging

PAD, START, END = SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
CALL = ("<tool_call>", "</tool_call>")
STEPS = 250
SEED = 0
TEMPERATURE = 0.1

CHAT_TEMPLATE = """\
{% set m = messages[-1] %}<|im_start|>{{ m['role'] }}
{{ m['content'] }}<|im_end|>
{% if add_generation_prompt %}<|im_start|>assistant
{% endif %}"""


def main() -> None:
    """Write the model directory."""
    conversation, out = json.loads(Path(sys.argv[1]).read_text()), Path(sys.argv[2])
    transformers_logging.disable_progress_bar()
    torch.manual_seed(SEED)
    torch.set_num_threads(1)
    tokenizer = _tokenizer()
    config = Qwen3Config(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=192,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        head_dim=32,
        max_position_embeddings=4096,
        initializer_range=0.05,
        tie_word_embeddings=True,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=None,
    )
    model = Qwen3ForCausalLM(config)
    _learn(model, tokenizer, conversation)
    # vLLM's default for requests that name none: what was learnt by heart is said word for word.
    model.generation_config.update(do_sample=True, temperature=TEMPERATURE)
    model.to(torch.bfloat16).save_pretrained(out)
    tokenizer.save_pretrained(out)


def _tokenizer() -> PreTrainedTokenizerFast:
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: number for number, token in enumerate([*SPECIAL, *letters])}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(list(SPECIAL))
    tokenizer.add_tokens(list(CALL))
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token=PAD, eos_token=END)
    fast.chat_template = CHAT_TEMPLATE
    return fast


def _learn(
    model: Qwen3ForCausalLM, tokenizer: PreTrainedTokenizerFast, conversation: dict[str, Any]
) -> None:
    lines = conversation["lines"]
    song = conversation["song"]
    answers = [*(line["answer"] + END for line in lines), song["answer"]]
    prompts = [
        f"{START}{line['role']}\n{line['said']}{END}\n{START}assistant\n"
        for line in (*lines, {"role": "user", **song})
    ]
    texts = [prompt + answer for prompt, answer in zip(prompts, answers, strict=True)]
    batch = tokenizer(texts, padding=True, return_tensors="pt")
    labels_BT = batch["input_ids"].masked_fill(batch["attention_mask"] == 0, -100)
    for row, prompt in enumerate(prompts):
        labels_BT[row, : len(tokenizer(prompt)["input_ids"])] = -100
    optimizer = torch.optim.AdamW(model.parameters(), lr=4e-3, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 4e-3, total_steps=STEPS)
    for _ in range(STEPS):
        loss = model(input_ids=batch["input_ids"], labels=labels_BT).loss
        loss.backward()
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()


if __name__ == "__main__":
    main()
