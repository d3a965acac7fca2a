"""Writes a checkpoint as a GGUF file that llama.cpp runs: the same network, its matrices in one of
ggml's types (pure: all of them in that type; Q4_K_M is llama.cpp's own mixture).

    python -m lm.gguf_file FOLDER FILE.gguf Q4_0|Q4_K|Q4_K_M|Q6_K|Q8_0|BF16|F16|F32

Architectures: llama (also Mixtral's experts) and qwen3. There is no vocabulary: ids in, logits out.
Facts of the format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

import ctypes
import os
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import gguf
import numpy as np

from .checkpoint import Checkpoint
from .network import gguf_name, llama3_factors, rotary_order

PIECE = 16 << 20  # elements that are quantized at a time


def ggml():
    """ggml's own quantizers, from the library that llama-cpp-python brings."""
    import llama_cpp

    library = ctypes.CDLL(Path(llama_cpp.__file__).parent / "lib/libggml-base.so")
    library.ggml_quantize_chunk.restype = ctypes.c_size_t
    library.ggml_quantize_chunk.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64,
                                            ctypes.c_int64, ctypes.c_int64, ctypes.c_void_p]
    return library


class GgufFile:
    def __init__(self, folder, path, kind):
        self.checkpoint = Checkpoint(folder)
        self.config = self.checkpoint.config
        self.path, self.kind = path, gguf.GGMLQuantizationType[kind]
        self.heads = self.config["num_attention_heads"]
        self.key_heads = self.config.get("num_key_value_heads", self.heads)
        self.head_dims = self.config.get("head_dim") or self.config["hidden_size"] // self.heads
        self.arch = {"llama": "llama", "mixtral": "llama", "qwen3": "qwen3"}[self.config["model_type"]]
        self.ggml = ggml()

    def metadata(self, writer):
        c = self.config
        writer.add_block_count(c["num_hidden_layers"])
        writer.add_context_length(c["max_position_embeddings"])
        writer.add_embedding_length(c["hidden_size"])
        writer.add_feed_forward_length(c["intermediate_size"])
        writer.add_head_count(self.heads)
        writer.add_head_count_kv(self.key_heads)
        writer.add_key_length(self.head_dims)
        writer.add_value_length(self.head_dims)
        writer.add_rope_dimension_count(self.head_dims)
        writer.add_rope_freq_base(c["rope_theta"])
        writer.add_layer_norm_rms_eps(c["rms_norm_eps"])
        writer.add_vocab_size(c["vocab_size"])
        if "num_local_experts" in c:
            writer.add_expert_count(c["num_local_experts"])
            writer.add_expert_used_count(c["num_experts_per_tok"])
        writer.add_tokenizer_model("none")

    def type_of(self, stem):
        """Vectors and routers are float32, as llama.cpp's own converter has them."""
        vector = len(self.checkpoint.shape(stem)) == 1 or stem.endswith("block_sparse_moe.gate")
        return gguf.GGMLQuantizationType.F32 if vector else self.kind

    def heads_to_order(self, stem):
        if self.arch == "llama" and stem.endswith(("q_proj", "k_proj")):
            return self.heads if stem.endswith("q_proj") else self.key_heads
        return 0

    def encode(self, rows, kind):
        """Rows of float32 as ggml stores them."""
        rows = np.ascontiguousarray(rows, np.float32)
        if kind == gguf.GGMLQuantizationType.F32:
            return rows.tobytes()
        block, size = gguf.GGML_QUANT_SIZES[kind]
        out = np.empty(rows.size // block * size, np.uint8)
        written = self.ggml.ggml_quantize_chunk(int(kind), rows.ctypes.data, out.ctypes.data, 0,
                                                rows.shape[0], rows.shape[1], None)
        if written != out.size:
            raise RuntimeError(f"ggml wrote {written} bytes of {kind.name}, not {out.size}")
        return out.tobytes()

    def pieces(self, stem):
        """The tensor's bytes in order."""
        shape, kind = self.checkpoint.shape(stem), self.type_of(stem)
        columns = shape[-1]
        rows = int(np.prod(shape)) // columns
        heads = self.heads_to_order(stem)
        if heads:
            yield self.encode(rotary_order(self.checkpoint.rows(stem, 0, rows), heads), kind)
            return
        step = max(PIECE // columns, 1)
        make = lambda at: self.encode(self.checkpoint.rows(stem, at, min(at + step, rows)), kind)
        with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
            for begin in range(0, rows, 4 * step):
                yield from pool.map(make, range(begin, min(begin + 4 * step, rows), step))

    def write(self):
        temporary = f"{self.path}.tmp"
        writer = gguf.GGUFWriter(temporary, self.arch)
        self.metadata(writer)
        stems = self.checkpoint.stems()
        factors = llama3_factors(self.config, self.head_dims)
        if factors is not None:
            writer.add_tensor_info("rope_freqs.weight", factors.shape, factors.dtype, factors.nbytes)
        for stem in stems:
            shape, kind = self.checkpoint.shape(stem), self.type_of(stem)
            block, size = gguf.GGML_QUANT_SIZES[kind]
            stored = [*shape[:-1], shape[-1] // block * size]
            if kind == gguf.GGMLQuantizationType.F32:
                writer.add_tensor_info(gguf_name(stem), shape, np.dtype(np.float32), 4 * int(np.prod(shape)))
            else:
                writer.add_tensor_info(gguf_name(stem), stored, np.dtype(np.uint8), int(np.prod(stored)), kind)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        [out] = writer.fout
        writer.write_padding(out, out.tell())
        if factors is not None:
            out.write(factors.tobytes())
            writer.write_padding(out, factors.nbytes)
        for stem in stems:
            size = 0
            for piece in self.pieces(stem):
                out.write(piece)
                size += len(piece)
            writer.write_padding(out, size)
        writer.close()
        os.replace(temporary, self.path)


def quantize_mixed(source, path, name):
    """llama.cpp's own mixtures of types, from a file in bfloat16."""
    import llama_cpp

    params = llama_cpp.llama_model_quantize_default_params()
    params.ftype = getattr(llama_cpp, f"LLAMA_FTYPE_MOSTLY_{name}")
    params.nthread = len(os.sched_getaffinity(0))
    temporary = f"{path}.tmp"
    if llama_cpp.llama_model_quantize(str(source).encode(), temporary.encode(), params):
        raise RuntimeError(f"llama.cpp could not quantize {source} to {name}")
    os.replace(temporary, path)


# Types that llama.cpp makes itself.
MIXED = ("Q4_K_M", "Q6_K")


def write_gguf(folder, path, kind):
    if kind not in MIXED:
        GgufFile(folder, path, kind).write()
        return
    wide = f"{path}.bf16"
    try:
        GgufFile(folder, wide, "BF16").write()
        quantize_mixed(wide, path, kind)
    finally:
        Path(wide).unlink(missing_ok=True)


if __name__ == "__main__":
    write_gguf(*sys.argv[1:4])
