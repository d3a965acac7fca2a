"""The benchmarks give peers the weights that Mica runs: reading its folders, and llama.cpp's order."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest

import mica.core as mx

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "bench"))
from lm import checkpoint, network  # noqa: E402


def write_model(folder, tensors, config):
    """A safetensors file of {name: (dtype, array as stored)}."""
    header, at = {}, 0
    for name, (dtype, stored) in tensors.items():
        header[name] = {"dtype": dtype, "shape": stored.shape, "data_offsets": [at, at + stored.nbytes]}
        at += stored.nbytes
    text = json.dumps(header).encode()
    data = len(text).to_bytes(8, "little") + text + b"".join(stored.tobytes() for _, stored in tensors.values())
    folder.joinpath("model.safetensors").write_bytes(data)
    folder.joinpath("config.json").write_text(json.dumps(config))


@pytest.mark.parametrize("bits", [2, 3, 4, 5, 6, 8])
def test_packed_matrices_are_read_as_mica_reads_them(tmp_path, bits):
    rng = np.random.default_rng(bits)
    words = rng.integers(0, 1 << 32, (3, 2, 64 * bits // 32), dtype=np.uint32)
    scales, biases = (rng.standard_normal((3, 2, 2)).astype(np.float16) for _ in range(2))
    write_model(tmp_path, {"a.weight": ("U32", words), "a.scales": ("F16", scales), "a.biases": ("F16", biases)},
                {"quantization": {"bits": bits, "group_size": 32}})
    read = checkpoint.Checkpoint(tmp_path)
    assert read.stems() == ["a"] and read.shape("a") == [3, 2, 64]
    flat = [mx.array(part.reshape(6, -1)) for part in (words, *(p.astype(np.float32) for p in (scales, biases)))]
    expected = np.array(mx.dequantize(*flat, group_size=32, bits=bits))
    np.testing.assert_allclose(read.rows("a", 0, 6), expected, rtol=1e-6, atol=1e-6)
    np.testing.assert_array_equal(read.rows("a", 2, 5), read.rows("a", 0, 6)[2:5])


def test_bfloat16_is_widened(tmp_path):
    values = np.array([[1.0, -2.5, 3e38, 0.0]], np.float32)
    write_model(tmp_path, {"a.weight": ("BF16", (values.view(np.uint32) >> 16).astype(np.uint16))}, {})
    read = checkpoint.Checkpoint(tmp_path).rows("a", 0, 1)
    np.testing.assert_allclose(read, values, rtol=1e-2)


def test_rotary_pairs_become_neighbours():
    rows = np.arange(16.0).reshape(16, 1)  # two heads of eight
    assert network.rotary_order(rows, 2).ravel().tolist() == [0, 4, 1, 5, 2, 6, 3, 7,
                                                              8, 12, 9, 13, 10, 14, 11, 15]


def test_factors_of_llama3():
    scaling = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
               "original_max_position_embeddings": 8192}
    factors = network.llama3_factors({"rope_theta": 500000.0, "rope_scaling": scaling}, 128)
    assert factors[0] == 1 and factors[-1] == 8
    assert np.all(np.diff(factors) >= 0) and np.any((factors > 1) & (factors < 8))
    assert network.llama3_factors({"rope_theta": 1e4}, 128) is None


def test_names():
    assert network.gguf_name("lm_head") == "output.weight"
    assert network.gguf_name("model.layers.12.mlp.up_proj") == "blk.12.ffn_up.weight"
    with pytest.raises(ValueError, match="conv"):
        network.gguf_name("model.layers.0.conv")
