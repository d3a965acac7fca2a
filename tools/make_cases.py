#!/usr/bin/env python3
"""Draws random tiny text models and lets transformers compute what Mica must answer.

    python make_cases.py OUT [--count 40] [--seed 1]

Runs in an environment with torch and transformers, outside the repository; the tests read the result with
MICA_ORACLES=OUT (cases lie in OUT/text/<family>-<number>). Drawn are every rope type past its original
length, windows shorter than the prompt, biases, tied and untied heads, half types, several files, absent keys,
and both spellings of the rope parameters. Logits are float32, eager attention; greedy tokens are recomputed
without a cache. Cases whose greedy choice is close to a tie are drawn again.
"""

import argparse
import json
import pathlib
import random

import torch
import transformers

FAMILIES = ["gemma2", "gpt2", "llama", "mistral", "mixtral", "phi", "phi3", "qwen2", "qwen3"]
PROMPT = 40
VOCABULARY = 320


def draw_rope(rng, family, dims):
    """Parameters of a rope type whose original length the prompt exceeds."""
    if family == "phi3":
        types = ["default", "longrope"]
    else:
        types = ["default", "linear", "dynamic", "llama3", "yarn", "longrope"]
    kind = rng.choice(types)
    rope = {"rope_type": kind, "rope_theta": rng.choice([10000.0, 500000.0])}
    if kind in ("linear", "dynamic", "llama3", "yarn"):
        rope["factor"] = rng.choice([2.0, 4.0])
    if kind in ("llama3", "yarn", "longrope"):
        rope["original_max_position_embeddings"] = 16
    if kind == "llama3":
        rope |= {"low_freq_factor": 1.0, "high_freq_factor": 4.0}
    if kind == "yarn" and rng.random() < 0.5:
        rope |= {"beta_fast": 16.0, "beta_slow": 2.0, "truncate": rng.random() < 0.5}
    if kind == "longrope":
        rope |= {"short_factor": [1 + 0.1 * i for i in range(dims // 2)],
                 "long_factor": [2 + 0.3 * i for i in range(dims // 2)]}
    return rope


def draw_config(rng, family):
    """A configuration as a dictionary, without what transformers fills in."""
    heads = rng.choice([2, 4])
    config = {"vocab_size": VOCABULARY, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
              "tie_word_embeddings": rng.random() < 0.5}
    if family == "gpt2":
        return config | {"n_embd": 16 * heads, "n_head": heads, "n_layer": 2, "n_positions": 64, "tie_word_embeddings": True,
                         "scale_attn_by_inverse_layer_idx": rng.random() < 0.5,
                         "activation_function": rng.choice(["gelu_new", "relu", "gelu"])}
    width, dims = 16 * heads, 16
    config |= {"hidden_size": width, "num_attention_heads": heads, "num_hidden_layers": rng.choice([2, 3]),
               "num_key_value_heads": rng.choice([k for k in (1, 2, 4) if heads % k == 0]),
               "intermediate_size": rng.choice([48, 80]),
               "max_position_embeddings": rng.choice([32, 64])}
    if family not in ("phi", "phi3", "qwen2") and rng.random() < 0.5:
        config["head_dim"] = dims = 24
    if family in ("gemma2", "qwen3"):
        config["head_dim"] = dims
    config["rope_parameters"] = draw_rope(rng, family, dims)
    if config["rope_parameters"]["rope_type"] == "longrope":
        config["max_position_embeddings"] = 64
    if family == "phi3":
        config["original_max_position_embeddings"] = 16
    if family in ("llama", "qwen3"):
        config["attention_bias"] = rng.random() < 0.5
    if family == "llama":
        config["mlp_bias"] = rng.random() < 0.5
    if family in ("mistral", "mixtral", "phi3", "gemma2"):
        config["sliding_window"] = rng.choice([5, 12, None]) if family != "gemma2" else rng.choice([5, 12])
    if family in ("qwen2", "qwen3") and rng.random() < 0.6:
        config |= {"use_sliding_window": True, "sliding_window": 7, "max_window_layers": 1}
    if family == "mixtral":
        config |= {"num_local_experts": 5, "num_experts_per_tok": rng.choice([1, 2, 3])}
    if family == "phi":
        config["qk_layernorm"] = rng.random() < 0.5
        config["rope_parameters"]["partial_rotary_factor"] = 0.5
        if config["rope_parameters"]["rope_type"] == "longrope":
            config["rope_parameters"] |= {"short_factor": [1, 1.5, 2, 2.5], "long_factor": [2, 3, 4, 5]}
    return config


def make_model(rng, family, config, seed):
    torch.manual_seed(seed)
    made = transformers.AutoConfig.for_model(family, **json.loads(json.dumps(config)))
    made._attn_implementation = "eager"
    model = transformers.AutoModelForCausalLM.from_config(made).float().eval()
    half = rng.choice([torch.bfloat16, torch.float16, None])
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            spread = 0.3 if parameter.dim() > 1 else 0.1
            noise = torch.randn_like(parameter) * spread
            parameter.copy_(parameter + noise if parameter.dim() == 1 else noise)
            if half:
                parameter.copy_(parameter.to(half).float())
        model.tie_weights()
    return model, half


def answers(model, ids):
    with torch.no_grad():
        logits = model(torch.tensor([ids]), use_cache=False).logits[0]
        positions = [0, len(ids) // 2, len(ids) - 1]
        greedy, margin, all_ids = [], 1e9, list(ids)
        for _ in range(16):
            row = model(torch.tensor([all_ids]), use_cache=False).logits[0, -1]
            best = torch.topk(row, 2)
            margin = min(margin, (best.values[0] - best.values[1]).item() / row.std().item())
            greedy.append(best.indices[0].item())
            all_ids.append(greedy[-1])
    return {"input_ids": ids, "positions": positions, "logits": [logits[p].tolist() for p in positions],
            "greedy": greedy}, margin


def older_spelling(rng, config):
    """Half of the time rope_theta and rope_scaling, as files from before transformers 5."""
    rope = config.get("rope_parameters")
    if not rope or rng.random() < 0.5:
        return
    del config["rope_parameters"]
    config["rope_theta"] = rope.pop("rope_theta")
    if "partial_rotary_factor" in rope:
        config["partial_rotary_factor"] = rope.pop("partial_rotary_factor")
    kind = rope.pop("rope_type")
    config["rope_scaling"] = None if kind == "default" else {"type": kind} | rope


def write_case(folder, rng, config, model, half, expected):
    model.to(half or torch.float32).save_pretrained(folder, max_shard_size=rng.choice(["20KB", "1GB"]))
    saved = json.loads((folder / "config.json").read_text())
    older_spelling(rng, saved)
    for key in ("head_dim", "layer_types", "num_key_value_heads"):
        if saved.get(key) is None or (key == "layer_types" and rng.random() < 0.5):
            saved.pop(key, None)
    (folder / "config.json").write_text(json.dumps(saved, indent=1))
    (folder / "expected.json").write_text(json.dumps(expected))


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("out", type=pathlib.Path)
    parser.add_argument("--count", type=int, default=40)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    rng = random.Random(options.seed)
    number = 0
    while number < options.count:
        family = FAMILIES[number % len(FAMILIES)]
        config = draw_config(rng, family)
        model, half = make_model(rng, family, config, rng.randrange(1 << 30))
        expected, margin = answers(model, [rng.randrange(3, VOCABULARY) for _ in range(PROMPT)])
        if margin < 1e-3:
            continue
        folder = options.out / "text" / f"{family}-{number}"
        folder.mkdir(parents=True, exist_ok=True)
        write_case(folder, rng, config, model, half, expected)
        number += 1


if __name__ == "__main__":
    main()
