"""Runs the built command, and makes small models' folders for it."""

import json
import os
import shutil
import struct
import subprocess
import tarfile
import tempfile
import unittest
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
MICA = os.environ.get("MICA", str(ROOT / "build/release/bin/mica"))
DEFAULT_MODEL = ROOT / "assets/shakespeare-3m"

LLAMA = {
    "model_type": "llama", "vocab_size": 16, "hidden_size": 8, "intermediate_size": 12,
    "num_hidden_layers": 1, "num_attention_heads": 2, "max_position_embeddings": 32,
}
LLAMA_SHAPES = {
    "model.embed_tokens.weight": [16, 8],
    "lm_head.weight": [16, 8],
    "model.norm.weight": [8],
    "model.layers.0.input_layernorm.weight": [8],
    "model.layers.0.post_attention_layernorm.weight": [8],
    "model.layers.0.self_attn.q_proj.weight": [8, 8],
    "model.layers.0.self_attn.k_proj.weight": [8, 8],
    "model.layers.0.self_attn.v_proj.weight": [8, 8],
    "model.layers.0.self_attn.o_proj.weight": [8, 8],
    "model.layers.0.mlp.gate_proj.weight": [12, 8],
    "model.layers.0.mlp.up_proj.weight": [12, 8],
    "model.layers.0.mlp.down_proj.weight": [8, 12],
}


def elements(shape):
    count = 1
    for extent in shape:
        count *= extent
    return count


def llama_header(shapes=None, dtype="F32", width=4):
    """The entries of a safetensors header, one tensor after the other."""
    header, at = {}, 0
    for name, shape in (shapes or LLAMA_SHAPES).items():
        size = elements(shape) * width
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [at, at + size]}
        at += size
    return header


def size_of(header):
    return max(entry["data_offsets"][1] for entry in header.values())


def safetensors(header, size=None):
    """A file's bytes: the header as text or entries, and zeros, as many as its offsets say."""
    if size is None:
        size = size_of(header)
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + bytes(size)


class CliTest(unittest.TestCase):
    def setUp(self):
        self.scratch = Path(tempfile.mkdtemp(prefix="mica-cli-"))
        self.addCleanup(shutil.rmtree, self.scratch)
        self.env = {**os.environ, "HF_HUB_CACHE": str(self.scratch / "hub")}

    def mica(self, *arguments, stdin=b""):
        if isinstance(stdin, str):
            stdin = stdin.encode()
        return subprocess.run([MICA, *map(str, arguments)], input=stdin, capture_output=True,
                              env=self.env, cwd=self.scratch, timeout=120)

    def output(self, *arguments, stdin=b""):
        done = self.mica(*arguments, stdin=stdin)
        self.assertEqual(done.returncode, 0, done.stderr.decode())
        return done.stdout.decode()

    def generate(self, *arguments, stdin=b""):
        """The JSON object of mica generate."""
        text = self.output("generate", *arguments, "--format", "json", stdin=stdin)
        self.assertEqual(text.count("\n"), 1)
        return json.loads(text)

    def assert_fails(self, code, *arguments, says=(), stdin=b""):
        done = self.mica(*arguments, stdin=stdin)
        error = done.stderr.decode()
        self.assertEqual(done.returncode, code, error)
        self.assertEqual(done.stdout, b"")
        for text in [says] if isinstance(says, str) else says:
            self.assertIn(text, error)
        return error

    def folder(self, name="model", config=None, weights=None, **files):
        """A folder with a tiny llama of zeros; `files` adds more, as JSON."""
        folder = self.scratch / name
        folder.mkdir(parents=True)
        folder.joinpath("config.json").write_text(json.dumps({**LLAMA, **(config or {})}))
        if weights is None:
            weights = safetensors(llama_header())
        folder.joinpath("model.safetensors").write_bytes(weights)
        for stem, value in files.items():
            folder.joinpath(stem + ".json").write_text(json.dumps(value))
        return folder

    def copy_of_default(self, name="copy", **files):
        """The default model's folder, with some of its JSON files replaced, or removed for None."""
        folder = self.scratch / name
        shutil.copytree(DEFAULT_MODEL, folder)
        for stem, value in files.items():
            path = folder / (stem + ".json")
            path.unlink(missing_ok=True)
            if value is not None:
                path.write_text(json.dumps(value))
        return folder

    def reference_case(self, name):
        """A case of the reference implementation: its folder, and what is expected of it."""
        with tarfile.open(ROOT / "tests/data/text.tar.xz") as archive:
            for member in archive:
                if member.isfile() and member.name.startswith(f"text/{name}/"):
                    path = self.scratch / member.name
                    path.parent.mkdir(parents=True, exist_ok=True)
                    path.write_bytes(archive.extractfile(member).read())
        folder = self.scratch / "text" / name
        return folder, json.loads(folder.joinpath("expected.json").read_text())
