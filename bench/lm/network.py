"""Where llama.cpp's idea of a network differs from Hugging Face's: names of tensors, the order of rotary
pairs, factors of frequencies. Facts of llama.cpp's convert_hf_to_gguf.py and gguf-py/constants.py."""

import numpy as np

NAMES = {
    "model.embed_tokens": "token_embd",
    "model.norm": "output_norm",
    "lm_head": "output",
}
LAYER_NAMES = {
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "block_sparse_moe.gate": "ffn_gate_inp",
    "block_sparse_moe.switch_mlp.gate_proj": "ffn_gate_exps",
    "block_sparse_moe.switch_mlp.up_proj": "ffn_up_exps",
    "block_sparse_moe.switch_mlp.down_proj": "ffn_down_exps",
}


def gguf_name(stem):
    if stem in NAMES:
        return NAMES[stem] + ".weight"
    model, layers, number, rest = stem.split(".", 3)
    if (model, layers) != ("model", "layers") or rest not in LAYER_NAMES:
        raise ValueError(f"{stem}: llama.cpp has no name for it here")
    return f"blk.{number}.{LAYER_NAMES[rest]}.weight"


def rotary_order(rows, heads):
    """llama.cpp's llama pairs neighbours where Hugging Face pairs halves of a head."""
    pairs = rows.reshape(heads, 2, rows.shape[0] // heads // 2, rows.shape[1])
    return pairs.swapaxes(1, 2).reshape(rows.shape)


def llama3_factors(config, dims):
    """Divisors of the rotary frequencies (Llama 3.1's scaling); nothing for other kinds."""
    scaling = config.get("rope_scaling") or {}
    if scaling.get("rope_type") != "llama3":
        return None
    factor, low, high = (scaling[key] for key in ("factor", "low_freq_factor", "high_freq_factor"))
    original = scaling["original_max_position_embeddings"]
    waves = 2 * np.pi * config["rope_theta"] ** (np.arange(0, dims, 2) / dims)
    smooth = np.clip((original / waves - low) / (high - low), 0, 1)
    return (1 / ((1 - smooth) / factor + smooth)).astype(np.float32)
