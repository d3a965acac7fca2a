"""mica convert: what the command adds to the conversion itself (tests/tune)."""

import json
import unittest

from support import DEFAULT_MODEL, CliTest


class Convert(CliTest):
    def convert(self, *arguments):
        return json.loads(self.output("convert", *arguments, "--format", "json"))

    def test_default_model_quantized_and_back(self):
        told = self.convert("-m", DEFAULT_MODEL, "--to", "q4", "-q")
        self.assertEqual(told["path"], "q4")
        self.assertEqual(told["model_type"], "llama")
        self.assertEqual(told["parameters"], 3475712)
        self.assertEqual(told["bits_per_weight"], 8 * told["bytes"] / 3475712)
        self.assertEqual(told["matrices"],
                         [{"bits": 4, "group_size": 64, "count": 29, "elements": 3473408}])
        self.assertIn("tokenizer.json", told["copied"])
        self.assertFalse(told["dry_run"])
        files = {f["name"]: f["bytes"] for f in told["files"]}
        self.assertEqual(files, {"model.safetensors": (self.scratch / "q4/model.safetensors").stat().st_size})
        text = self.output("generate", "-m", "q4", "-p", "ROMEO:", "-n", 20)
        self.assertGreater(len(text), 20)
        inspected = json.loads(self.output("inspect", "q4", "--format", "json"))
        self.assertEqual(inspected["quantization"], {"bits": 4, "group_size": 64, "mode": "affine"})
        self.assertEqual(inspected["parameters"], 3475712)
        self.convert("-m", "q4", "--to", "dense", "-d")
        dense = json.loads(self.output("inspect", "dense", "--format", "json"))
        self.assertIsNone(dense["quantization"])
        self.assertEqual(dense["bytes"], 2 * 3475712)
        self.assertGreater(len(self.output("generate", "-m", "dense", "-p", "ROMEO:", "-n", 20)), 20)

    def test_dry_run_tells_what_would_be(self):
        options = ("-m", DEFAULT_MODEL, "-q", "--bits", 3, "--group-size", 32, "--layer",
                   "model.embed_tokens=8", "--shard-size", "500k")
        dry = self.convert(*options, "--dry-run")
        self.assertTrue(dry["dry_run"])
        self.assertEqual(list(self.scratch.iterdir()), [])
        wet = self.convert(*options, "--to", "out")
        for key in ["bytes", "bits_per_weight", "files", "matrices", "copied"]:
            self.assertEqual(dry[key], wet[key], key)
        self.assertGreater(len(wet["files"]), 2)
        self.assertTrue((self.scratch / "out/model.safetensors.index.json").exists())
        text = self.output("convert", *options, "--dry-run")
        for part in ["bits per weight", "8 bits, groups of 32", "model-00001-of-", "--dry-run"]:
            self.assertIn(part, text)

    def test_a_target_that_is_not_empty(self):
        self.folder("there")
        before = (self.scratch / "there/config.json").read_bytes()
        options = ("convert", "-m", DEFAULT_MODEL, "--to", "there", "-q")
        self.assert_fails(1, *options, says=["there exists and is not empty"])
        self.assertEqual((self.scratch / "there/config.json").read_bytes(), before)
        self.output(*options, "--overwrite")
        self.assertIn("quantization", json.loads((self.scratch / "there/config.json").read_text()))

    def test_wrong_usage(self):
        model = ("convert", "-m", DEFAULT_MODEL)
        to = (*model, "--to", "x")
        self.assert_fails(2, *model, "-q", says="--to")
        self.assert_fails(2, *to, says="nothing to do")
        self.assert_fails(2, *to, "-q", "-d", says="exclude")
        self.assert_fails(2, *to, "-q", "--bits", 7, says="2, 3, 4, 5, 6 or 8, not 7")
        self.assert_fails(2, *to, "-q", "--group-size", 48, says="not 48")
        self.assert_fails(2, *to, "--bits", 4, says="need -q")
        self.assert_fails(2, *to, "-d", "--layer", "lm_head=4", says="need -q")
        self.assert_fails(2, *to, "-q", "--layer", "lm_head", says="PATTERN=BITS")
        self.assert_fails(2, *to, "-q", "--quant-predicate", "mixed_1_2", says="mixed_2_6")
        self.assert_fails(2, *to, "--dtype", "float8", says="bfloat16")
        self.assert_fails(2, *to, "-q", "--shard-size", "big", says="--shard-size")

    def test_what_fails_leaves_nothing(self):
        to = ("--to", "x", "-q")
        self.assert_fails(1, "convert", "-m", DEFAULT_MODEL, *to, "--layer", "lm_hed=8",
                          says="no matrix of the model matches 'lm_hed'")
        self.assert_fails(1, "convert", "-m", DEFAULT_MODEL, "--to", "x", "-d", says="is not quantized")
        cut = self.copy_of_default("cut")
        weights = (cut / "model.safetensors").read_bytes()
        (cut / "model.safetensors").write_bytes(weights[:-100])
        self.assert_fails(1, "convert", "-m", cut, *to, says="truncated")
        self.assert_fails(1, "convert", "-m", self.folder("odd", config={"model_type": "mamba"}), *to,
                          says="known: gemma2")
        (self.scratch / "file").write_text("")
        self.assert_fails(1, "convert", "-m", DEFAULT_MODEL, "--to", "file", "-q", says="is not a folder")
        self.assert_fails(1, "convert", "-m", DEFAULT_MODEL, "--to", "file/x", "-q", says="file")
        self.assertEqual({p.name for p in self.scratch.iterdir()}, {"cut", "odd", "file"})


if __name__ == "__main__":
    unittest.main()
