"""``python tests/fakes/tiny_adapters.py BASE OUT``: real PEFT adapters of a real model.

Run as a process of its own: the only place outside the trainer that needs torch. Without a
model in BASE, a small random Qwen3 with its tokenizer is made there first.
"""

import json
import math
import sys
from pathlib import Path

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

_PROJECTIONS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
_PROMPT = [5, 17, 101, 42, 7, 200, 33, 12, 90, 64, 150, 3]


def main() -> None:
    """Write the adapters ``sound``, ``foreign`` (a wrong probe), ``idle`` and ``broken``."""
    base, out = Path(sys.argv[1]), Path(sys.argv[2])
    if not (base / "config.json").exists():
        _make_base(base)
    for name, scale in {"sound": 0.05, "foreign": 0.05, "idle": 0.0, "broken": math.nan}.items():
        torch.manual_seed(len(name))
        model = get_peft_model(
            Qwen3ForCausalLM.from_pretrained(base),
            LoraConfig(r=8, lora_alpha=16, target_modules=_PROJECTIONS),
        )
        with torch.no_grad():
            for parameter_name, parameter in model.named_parameters():
                if "lora_B" in parameter_name:
                    parameter.copy_(torch.randn_like(parameter) * scale)
        model.save_pretrained(out / name)
        if name in ("sound", "foreign"):
            told = _logprobs(model)
            wrong = [value - 2.0 for value in told]
            probe = {"prompt_token_ids": _PROMPT, "logprobs": told if name == "sound" else wrong}
            (out / name / "probe.json").write_text(json.dumps(probe))


def _logprobs(model: PeftModel) -> list[float]:
    tokens = torch.tensor([_PROMPT])
    with torch.no_grad():
        logits_BTV = model(tokens).logits.float()
    logprobs_BTV = logits_BTV.log_softmax(-1)
    return logprobs_BTV[0, :-1].gather(1, tokens[0, 1:, None])[:, 0].tolist()


def _make_base(folder: Path) -> None:
    torch.manual_seed(0)
    config = Qwen3Config(
        vocab_size=512,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=32,
        max_position_embeddings=1024,
        tie_word_embeddings=True,
        eos_token_id=1,
        pad_token_id=0,
        bos_token_id=None,
    )
    Qwen3ForCausalLM(config).to(torch.bfloat16).save_pretrained(folder)
    vocabulary = {"<pad>": 0, "<eos>": 1} | {f"w{index}": index for index in range(2, 512)}
    words = Tokenizer(models.WordLevel(vocabulary, unk_token="<pad>"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(
        tokenizer_object=words, pad_token="<pad>", eos_token="<eos>", unk_token="<pad>"
    ).save_pretrained(folder)


if __name__ == "__main__":
    main()
