"""Where models are found, and what mica inspect tells of them."""

import json
import shutil
from pathlib import Path

from support import DEFAULT_MODEL, LLAMA_SHAPES, CliTest, elements, llama_header, safetensors


class HubCache(CliTest):
    COMMIT = "0123456789abcdef0123456789abcdef01234567"

    def setUp(self):
        super().setUp()
        self.make_repository(self.scratch / "hub")

    def make_repository(self, cache):
        self.home = cache / "models--org--tiny"
        (self.home / "refs").mkdir(parents=True)
        (self.home / "refs/main").write_text(self.COMMIT)
        (self.home / "refs/v1").write_text(self.COMMIT + "\n")
        (self.home / "blobs").mkdir()
        self.snapshot = self.home / "snapshots" / self.COMMIT
        self.snapshot.mkdir(parents=True)
        for number, path in enumerate(sorted(DEFAULT_MODEL.iterdir())):
            shutil.copy(path, self.home / "blobs" / str(number))
            (self.snapshot / path.name).symlink_to(Path("../../blobs") / str(number))

    def assert_found(self, name):
        told = json.loads(self.output("inspect", name, "--format", "json"))
        self.assertEqual(told["parameters"], 3475712)
        self.assertIn(self.COMMIT, told["path"])

    def test_revisions(self):
        for revision in ["", "@main", "@v1", "@" + self.COMMIT]:
            self.assert_found("org/tiny" + revision)
        self.assertEqual(len(self.generate("-m", "org/tiny", "-p", "x", "-n", 2)["ids"]), 2)

    def test_places_of_the_cache(self):
        del self.env["HF_HUB_CACHE"]
        self.env.update(HF_HOME=str(self.scratch / "home"))
        self.make_repository(self.scratch / "home/hub")
        self.assert_found("org/tiny")
        del self.env["HF_HOME"]
        self.env.pop("XDG_CACHE_HOME", None)
        self.env.update(HOME=str(self.scratch / "user"))
        self.make_repository(self.scratch / "user/.cache/huggingface/hub")
        self.assert_found("org/tiny")

    def test_existing_path_wins(self):
        self.folder("org/tiny")
        told = json.loads(self.output("inspect", "org/tiny", "--format", "json"))
        self.assertEqual(told["path"], "org/tiny")

    def test_what_is_not_there(self):
        self.assert_fails(1, "inspect", "org/tini", says=["org/tiny", "hf download org/tini"])
        self.assert_fails(1, "inspect", "org/tiny@v9", says=["v9", "main", "--revision"])
        for name in ["../hub", "org/../tiny", "a/b/c", "/nowhere", "org/tiny@../../x", "org/", "",
                     "org/tiny@"]:
            self.assert_fails(1, "inspect", "-m", name, says="no ")
        self.assert_fails(1, "inspect", DEFAULT_MODEL / "config.json", says="is a file")

    def test_crafted_references(self):
        (self.home / "refs/evil").write_text("../../..")
        self.assert_fails(1, "inspect", "org/tiny@evil", says="evil")

    def test_links_stay_inside(self):
        outside = self.scratch / "secret.json"
        outside.write_text("{}")
        (self.snapshot / "generation_config.json").unlink()
        (self.snapshot / "generation_config.json").symlink_to(outside)
        self.assert_fails(1, "generate", "-m", "org/tiny", "-p", "x", says="out of the Hugging Face")

    def test_unfinished_download(self):
        (self.snapshot / "model.safetensors").resolve().unlink()
        self.assert_fails(1, "generate", "-m", "org/tiny", "-p", "x", says="download")


class Inspect(CliTest):
    def test_default_model(self):
        told = json.loads(self.output("inspect", DEFAULT_MODEL, "--format", "json"))
        self.assertEqual(told["model_type"], "llama")
        self.assertEqual(told["architectures"], ["LlamaForCausalLM"])
        self.assertTrue(told["supported"])
        self.assertEqual(told["dtypes"],
                         {"bfloat16": {"tensors": 38, "elements": 3475712, "bytes": 6951424}})
        self.assertIsNone(told["quantization"])
        self.assertEqual(told["context_length"], 1024)
        self.assertEqual((told["layers"], told["vocabulary"]), (4, 2048))
        self.assertNotIn("tensors", told)

    def test_memory_follows_the_context(self):
        def memory(context, *options):
            return json.loads(self.output("inspect", DEFAULT_MODEL, "--format", "json",
                                          "--context", context, *options))["memory"]
        # 4 layers, keys and values of 4 heads of 32 in two bytes.
        self.assertEqual(memory(1000)["cache_bytes"], 1000 * 4 * 2 * 4 * 32 * 2)
        self.assertEqual(memory(1000, "--dtype", "float32")["cache_bytes"],
                         2 * memory(1000)["cache_bytes"])
        one = memory(500)
        self.assertEqual(one["context"], 500)
        self.assertEqual(one["total_bytes"],
                         one["weights_bytes"] + one["cache_bytes"] + one["workspace_bytes"])

    def test_tensors(self):
        told = json.loads(self.output("inspect", self.folder(), "--tensors", "--format", "json"))
        self.assertEqual({t["name"]: t["shape"] for t in told["tensors"]}, LLAMA_SHAPES)
        for tensor in told["tensors"]:
            self.assertEqual(tensor["dtype"], "float32")
            self.assertEqual(tensor["file"], "model.safetensors")
            self.assertEqual(tensor["bytes"], 4 * elements(tensor["shape"]))
        self.assertIn("model.layers.0.mlp.up_proj.weight", self.output("inspect", "model", "--tensors"))

    def test_quantized_matrices_count_unpacked(self):
        header = {
            "lm_head.weight": {"dtype": "U32", "shape": [16, 8], "data_offsets": [0, 512]},
            "lm_head.scales": {"dtype": "F16", "shape": [16, 1], "data_offsets": [512, 544]},
            "lm_head.biases": {"dtype": "F16", "shape": [16, 1], "data_offsets": [544, 576]},
        }
        folder = self.folder(config={"quantization": {"bits": 4, "group_size": 64}},
                             weights=safetensors(header))
        told = json.loads(self.output("inspect", folder, "--format", "json"))
        self.assertEqual(told["parameters"], 16 * 64)
        self.assertEqual(told["bytes"], 576)
        self.assertEqual(told["quantization"], {"bits": 4, "group_size": 64, "mode": "affine"})
        self.assertIn("4 bits, groups of 64", self.output("inspect", folder))

    def test_unsupported_models_are_told_too(self):
        folder = self.folder(config={"model_type": "mamba"})
        told = json.loads(self.output("inspect", folder, "--format", "json"))
        self.assertFalse(told["supported"])
        self.assertIsNone(told["memory"])
        self.assertIn("known: gemma2", self.output("inspect", folder))

    def test_control_characters_are_escaped_in_messages(self):
        header = llama_header()
        header["\x1b[31mred"] = header.pop("lm_head.weight")
        folder = self.folder(weights=safetensors(header))
        error = self.assert_fails(1, "generate", "-m", folder, "--prompt-ids", "1")
        self.assertNotIn("\x1b", error)
