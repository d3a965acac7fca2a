"""Reads the folders that Mica runs (Hugging Face layout, dense or in MLX's affine format) with NumPy, a
piece of rows at a time, so that peers can be given the same weights."""

import json
from pathlib import Path

import numpy as np

DTYPES = {"F32": np.float32, "F16": np.float16, "BF16": np.uint16, "U32": np.uint32}


def widen(stored, dtype):
    """Stored numbers as float32."""
    if dtype == "BF16":
        return (stored.astype(np.uint32) << 16).view(np.float32)
    return stored.astype(np.float32)


def unpack(words, bits):
    """MLX's packed rows, uint32 [rows, words], as integers [rows, columns], lowest bits first."""
    rows = words.shape[0]
    if bits in (2, 4, 8):
        shifts = np.arange(0, 32, bits, dtype=np.uint32)
        fields = (words[:, :, None] >> shifts) & np.uint32((1 << bits) - 1)
        return fields.reshape(rows, -1)
    stream = np.unpackbits(np.ascontiguousarray(words).view(np.uint8), axis=1, bitorder="little")
    weights = (1 << np.arange(bits)).astype(np.uint32)
    return stream.reshape(rows, -1, bits).astype(np.uint32) @ weights


class Checkpoint:
    def __init__(self, folder):
        self.folder = Path(folder)
        self.config = json.loads((self.folder / "config.json").read_text())
        self.quantization = self.config.get("quantization")
        self.tensors = {}  # name -> (array as stored, dtype)
        for path in sorted(self.folder.glob("model*.safetensors")):
            self.map_file(path)

    def map_file(self, path):
        with open(path, "rb") as file:
            length = int.from_bytes(file.read(8), "little")
            header = json.loads(file.read(length))
        data = np.memmap(path, np.uint8, "r", offset=8 + length)
        for name, entry in header.items():
            if name == "__metadata__":
                continue
            begin, end = entry["data_offsets"]
            stored = data[begin:end].view(DTYPES[entry["dtype"]]).reshape(entry["shape"])
            self.tensors[name] = stored, entry["dtype"]

    def stems(self):
        """Names without .weight, each a tensor or a packed matrix with its scales and biases."""
        return [name[: -len(".weight")] for name in self.tensors if name.endswith(".weight")]

    def shape(self, stem):
        stored, _ = self.tensors[stem + ".weight"]
        if stem + ".scales" not in self.tensors:
            return list(stored.shape)
        scales, _ = self.tensors[stem + ".scales"]
        return [*scales.shape[:-1], scales.shape[-1] * self.quantization["group_size"]]

    def rows(self, stem, begin, end):
        """Rows of the matrix as float32; leading axes count as rows."""
        def part(end_of_name):
            stored, dtype = self.tensors[stem + end_of_name]
            return widen(stored.reshape(-1, stored.shape[-1])[begin:end], dtype)

        stored, dtype = self.tensors[stem + ".weight"]
        if stem + ".scales" not in self.tensors:
            return part(".weight")
        group = self.quantization["group_size"]
        packed = stored.reshape(-1, stored.shape[-1])[begin:end]
        levels = unpack(packed, self.quantization["bits"]).astype(np.float32)
        levels = levels.reshape(len(levels), -1, group)
        dense = levels * part(".scales")[:, :, None] + part(".biases")[:, :, None]
        return dense.reshape(len(levels), -1)
