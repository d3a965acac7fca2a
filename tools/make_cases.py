#!/usr/bin/env python3
"""Draws random tiny text models and lets transformers compute what Mica must answer.

    python make_cases.py OUT [--count 40] [--seed 1] [--family llama]

Runs in an environment with torch, transformers and safetensors, outside the repository; the tests read the result with
MICA_ORACLES=OUT (cases lie in OUT/text/<family>-<number>). Drawn is what configurations of the families
vary in the wild: every rope type past its original length in the older and the newer spelling, windows shorter than
the prompt, biases, activations, caps, tied and untied heads, odd sizes, half types, several files, absent keys, keys
without the decoder's prefix, buffers of older files. The folder is written first and then loaded by transformers: what is
expected is what it reads from that folder. Logits are float32, eager attention; greedy tokens are
recomputed without a cache. Cases whose greedy choice is close to a tie are drawn again.
"""

import argparse
import json
import pathlib
import random
import shutil

import safetensors.torch
import torch
import transformers

VOCABULARIES = [320, 301]
GREEDY = 16
ACTIVATIONS = ["silu", "silu", "gelu", "gelu_pytorch_tanh", "gelu_new", "relu", "quick_gelu"]


def draw_yarn(rng):
    rope = {"factor": rng.choice([2.0, 4.0])}
    if rng.random() < 0.5:
        rope |= {"beta_fast": 16.0, "beta_slow": 2.0, "truncate": rng.random() < 0.5}
    if rng.random() < 0.3:
        rope |= {"mscale": 0.7, "mscale_all_dim": 1.2}
    if rng.random() < 0.3:
        rope["attention_factor"] = 1.3
    return rope


def draw_longrope(rng, dims):
    rope = {"short_factor": [1 + 0.1 * i for i in range(dims // 2)],
            "long_factor": [2 + 0.3 * i for i in range(dims // 2)]}
    if rng.random() < 0.3:
        rope["factor"] = 8.0
    if rng.random() < 0.3:
        rope["attention_factor"] = 1.2
    return rope


def draw_rope(rng, types, dims):
    """Parameters of a rope type; the prompt exceeds the original length."""
    kind = rng.choice(types)
    rope = {"rope_type": kind, "rope_theta": rng.choice([10000.0, 500000.0, 100.0])}
    if kind in ("linear", "dynamic"):
        rope["factor"] = rng.choice([2.0, 4.0])
    if kind == "llama3":
        rope |= {"factor": rng.choice([2.0, 8.0]), "low_freq_factor": 1.0, "high_freq_factor": rng.choice([2.0, 4.0])}
    if kind == "yarn":
        rope |= draw_yarn(rng)
    if kind == "longrope":
        rope |= draw_longrope(rng, dims)
    if kind in ("llama3", "yarn", "longrope") and rng.random() < 0.9:
        rope["original_max_position_embeddings"] = rng.choice([16, 24])
    return rope


def draw_gpt2(rng):
    heads = rng.choice([1, 2, 3])
    width = heads * rng.choice([8, 16, 20])
    return {"n_embd": width, "n_head": heads, "n_layer": rng.choice([1, 2]), "n_positions": 64,
            "n_inner": rng.choice([None, 40]), "scale_attn_weights": rng.random() < 0.8,
            "tie_word_embeddings": rng.random() < 0.7, "layer_norm_epsilon": rng.choice([1e-5, 1e-3]),
            "scale_attn_by_inverse_layer_idx": rng.random() < 0.5,
            "activation_function": rng.choice(["gelu_new", "relu", "gelu", "gelu_fast", "silu"])}


def draw_sizes(rng, family):
    """What all families but GPT-2 share; also returns the dimensions of a head."""
    heads = rng.choice([2, 4, 6])
    dims = rng.choice([8, 16, 20])
    config = {"hidden_size": heads * dims, "num_attention_heads": heads, "num_hidden_layers": rng.choice([1, 2, 3]),
              "num_key_value_heads": rng.choice([k for k in (1, 2, 3, 4, 6) if heads % k == 0]),
              "intermediate_size": rng.choice([48, 80, 54]), "max_position_embeddings": rng.choice([32, 64, 96]),
              "hidden_act": rng.choice(ACTIVATIONS), "rms_norm_eps": rng.choice([1e-6, 1e-5, 1e-3])}
    if family in ("gemma2", "qwen3") or family in ("llama", "mistral", "mixtral", "starcoder2") and rng.random() < 0.4:
        config["head_dim"] = dims = rng.choice([dims, 24])
    return config, dims


def draw_windows(rng, family, config):
    window = rng.choice([1, 5, 12])
    if family in ("gemma2", "qwen2", "qwen3"):
        config["sliding_window"] = window
    elif rng.random() < 0.7:
        config["sliding_window"] = rng.choice([window, None])
    if family in ("qwen2", "qwen3"):
        config |= {"use_sliding_window": rng.random() < 0.7, "max_window_layers": rng.choice([0, 1, 5])}
    if family in ("gemma2", "mistral") or config.get("use_sliding_window"):
        if rng.random() < 0.6:
            return
        config["sliding_window"] = window
        if family == "mistral":  # is then read as Ministral, which fails without
            config.setdefault("head_dim", config["hidden_size"] // config["num_attention_heads"])
        config["layer_types"] = [rng.choice(["full_attention", "sliding_attention"])
                                 for _ in range(config["num_hidden_layers"])]


def draw_family(rng, family, config):
    """Options of single families."""
    if family in ("llama", "qwen3", "gemma2"):
        config["attention_bias"] = rng.random() < 0.5
    if family == "llama":
        config["mlp_bias"] = rng.random() < 0.5
    if family == "mixtral":
        config |= {"num_local_experts": 5, "num_experts_per_tok": rng.choice([1, 2, 3, 5])}
    if family == "phi":
        config |= {"qk_layernorm": rng.random() < 0.5, "layer_norm_eps": config.pop("rms_norm_eps")}
    if family == "starcoder2":
        config |= {"use_bias": rng.random() < 0.5, "norm_epsilon": config.pop("rms_norm_eps")}
    if family == "stablelm":
        config |= {"use_qkv_bias": rng.random() < 0.5, "use_parallel_residual": rng.random() < 0.5,
                   "layer_norm_eps": config.pop("rms_norm_eps")}
    if family == "phi3":
        config["original_max_position_embeddings"] = 16
    if family == "gemma2":
        config |= {"hidden_activation": config.pop("hidden_act"), "query_pre_attn_scalar": rng.choice([24, 256, 144]),
                   "attn_logit_softcapping": rng.choice([50.0, 5.0, None]),
                   "final_logit_softcapping": rng.choice([30.0, 4.0, None])}


def draw_config(rng, family):
    """A configuration as a dictionary, without what transformers fills in."""
    config = {"vocab_size": rng.choice(VOCABULARIES), "pad_token_id": 0, "bos_token_id": 1,
              "eos_token_id": rng.choice([2, [2, 5]]), "tie_word_embeddings": rng.random() < 0.5}
    if family == "gpt2":
        return config | draw_gpt2(rng)
    sizes, dims = draw_sizes(rng, family)
    config |= sizes
    partial = {"phi": [0.5, 0.25, 1.0], "phi3": [1.0, 0.75, 0.5], "stablelm": [0.5, 0.25]}.get(family, [None])
    share = rng.choice([p for p in partial if p is None or int(dims * p) % 2 == 0 and int(dims * p) >= 4])
    types = ["default", "longrope"] if family == "phi3" else ["default", "linear", "dynamic", "llama3", "yarn", "longrope"]
    rope = draw_rope(rng, types, int(dims * (share or 1)))
    if share is not None:
        rope["partial_rotary_factor"] = share
    if family == "mixtral" and rope["rope_type"] in ("dynamic", "yarn", "longrope"):
        config.setdefault("head_dim", dims)  # transformers fails without
    if rope["rope_type"] == "longrope":
        config["max_position_embeddings"] = 64
    config["rope_parameters"] = rope
    if family in ("mistral", "mixtral", "phi3", "gemma2", "qwen2", "qwen3", "starcoder2"):
        draw_windows(rng, family, config)
    draw_family(rng, family, config)
    return config


def older_spelling(rng, config):
    """Half of the time rope_theta and rope_scaling, as files from before transformers 5."""
    rope = config.get("rope_parameters")
    if not rope or rng.random() < 0.5:
        return
    del config["rope_parameters"]
    for key in ("rope_theta", "partial_rotary_factor"):
        if key in rope:
            config[key] = rope.pop(key)
    if rng.random() < 0.3 and "original_max_position_embeddings" in rope:
        config["original_max_position_embeddings"] = rope.pop("original_max_position_embeddings")
    kind = rope.pop("rope_type")
    names = rng.choice([{"type": kind}, {"rope_type": kind}, {"rope_type": kind, "type": kind}])
    config["rope_scaling"] = None if kind == "default" else names | rope


def drop_defaults(rng, family, config):
    """Half of the time leaves away what the family has by default, as smaller files do."""
    defaults = transformers.AutoConfig.for_model(family).to_dict()
    if rng.random() < 0.5:
        return
    for key in list(config):
        if key in defaults and config[key] == defaults[key]:
            del config[key]


NULLS = {"llama": ["head_dim", "num_key_value_heads"], "mistral": ["head_dim"], "qwen2": ["num_key_value_heads", "layer_types"],
         "qwen3": ["num_key_value_heads", "layer_types"], "gemma2": ["layer_types"], "phi": ["num_key_value_heads"],
         "phi3": ["num_key_value_heads"], "gpt2": ["n_inner"]}


def add_nulls(rng, family, config):
    """Sometimes null for what is absent or chosen: not always the same as leaving it away."""
    for key in NULLS.get(family, []):
        if rng.random() < 0.15 and not (key == "head_dim" and "layer_types" in config):
            config[key] = None


def make_config(rng, family):
    """config.json as it will stand in the folder."""
    config = json.loads(json.dumps(draw_config(rng, family)))
    older_spelling(rng, config)
    drop_defaults(rng, family, config)
    add_nulls(rng, family, config)
    return {"model_type": family} | config


def spread(model, half):
    """Random weights large enough that every part matters, exact in the half type."""
    with torch.no_grad():
        for parameter in model.parameters():
            noise = torch.randn_like(parameter) * (0.3 if parameter.dim() > 1 else 0.1)
            parameter.copy_(parameter + noise if parameter.dim() == 1 else noise)
            parameter.copy_(parameter.to(half).float())
        model.tie_weights()


def older_tensors(rng, family, tensors, config):
    """Buffers of older files, and keys of the bare decoder."""
    layers = config.get("num_hidden_layers", config.get("n_layer"))
    for i in range(layers):
        if family == "gpt2":
            tensors[f"transformer.h.{i}.attn.bias"] = torch.ones(1, 1, 64, 64)
            tensors[f"transformer.h.{i}.attn.masked_bias"] = torch.tensor(-10000.0)
        else:
            tensors[f"model.layers.{i}.self_attn.rotary_emb.inv_freq"] = torch.ones(4)
    if rng.random() < 0.5:
        return tensors
    prefix = "transformer." if family == "gpt2" else "model."
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items()}


def save(folder, rng, family, config):
    """A model in the folder, in one file or several."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config, indent=1))
    model = transformers.AutoModelForCausalLM.from_config(transformers.AutoConfig.from_pretrained(folder)).float().eval()
    half = rng.choice([torch.bfloat16, torch.float16, torch.float32])
    spread(model, half)
    model.to(half).save_pretrained(folder, max_shard_size=rng.choice(["20KB", "1GB"]))
    (folder / "config.json").write_text(json.dumps(config, indent=1))
    single = folder / "model.safetensors"
    if single.exists() and rng.random() < 0.5:
        tensors = older_tensors(rng, family, safetensors.torch.load_file(single), config)
        safetensors.torch.save_file({name: tensor.clone() for name, tensor in tensors.items()}, single,
                                    metadata={"format": "pt"})


def load(folder):
    model, report = transformers.AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, attn_implementation="eager", experts_implementation="eager",
        output_loading_info=True)
    if report["missing_keys"]:
        raise ValueError(f"{folder}: {report['missing_keys']} not found")
    return model.eval()


def answers(model, ids):
    with torch.no_grad():
        logits = model(torch.tensor([ids]), use_cache=False).logits[0]
        positions = sorted({0, len(ids) // 2, len(ids) - 1})
        greedy, margin, all_ids = [], 1e9, list(ids)
        for _ in range(GREEDY):
            row = model(torch.tensor([all_ids]), use_cache=False).logits[0, -1]
            best = torch.topk(row, 2)
            margin = min(margin, (best.values[0] - best.values[1]).item() / row.abs().max().item())
            greedy.append(best.indices[0].item())
            all_ids.append(greedy[-1])
    return {"input_ids": ids, "positions": positions, "logits": [logits[p].tolist() for p in positions],
            "greedy": greedy}, margin


def make_case(folder, rng, family):
    """False if the case is too close to a tie."""
    config = make_config(rng, family)
    torch.manual_seed(rng.randrange(1 << 30))
    save(folder, rng, family, config)
    lengths = [1, 13, 16, 30, 40, 40] if family == "gpt2" else [1, 13, 16, 30, 40, 40, 40, 300]
    ids = [rng.randrange(3, config["vocab_size"]) for _ in range(rng.choice(lengths))]
    expected, margin = answers(load(folder), ids)
    (folder / "expected.json").write_text(json.dumps(expected))
    return margin > 1e-3


def main():
    families = ["gemma2", "gpt2", "llama", "mistral", "mixtral", "phi", "phi3", "qwen2", "qwen3", "stablelm", "starcoder2"]
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("out", type=pathlib.Path)
    parser.add_argument("--count", type=int, default=40)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--family", help="this one only; default: all in turn")
    options = parser.parse_args()
    torch.set_num_threads(1)  # tiny models: threads only wait
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    rng = random.Random(options.seed)
    number = 0
    while number < options.count:
        family = options.family or families[number % len(families)]
        folder = options.out / "text" / f"{family}-{number}"
        if make_case(folder, rng, family):
            number += 1
        else:
            shutil.rmtree(folder)


if __name__ == "__main__":
    main()
