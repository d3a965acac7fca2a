"""mica perplexity: the definition itself is tested in tests/tune."""

import json
import lzma
import math
import unittest

from support import DEFAULT_MODEL, ROOT, CliTest


def shakespeare(characters):
    return lzma.open(ROOT / "tests/data/tinyshakespeare.txt.xz").read().decode()[:characters]


class Perplexity(CliTest):
    def perplexity(self, *arguments, stdin=b""):
        return json.loads(self.output("perplexity", *arguments, "--format", "json", stdin=stdin))

    def text(self, characters=4000):
        (self.scratch / "text.txt").write_text(shakespeare(characters))
        return "text.txt"

    def test_equals_transformers(self):
        # transformers 5.23, weights and activations in float32, log-softmax and sums in float64:
        # each window on its own, each token scored in the first window that holds it.
        text = self.text()
        for context, stride, scored, mean, error in [
                (512, 512, 1273, 3.5419999031813636, 0.0607968050455494),
                (128, 128, 1266, 3.4137186705612526, 0.06056075061170616),
                (128, 48, 1275, 3.3362688533165876, 0.06028761852382495)]:
            for batch in (1, 3):
                told = self.perplexity("-m", DEFAULT_MODEL, text, "--dtype", "float32", "--context",
                                       context, "--stride", stride, "--batch-size", batch)
                self.assertEqual(told["tokens_scored"], scored)
                self.assertAlmostEqual(told["mean_nll"], mean, delta=2e-5)
                self.assertAlmostEqual(told["mean_nll_error"], error, delta=2e-6)
                self.assertAlmostEqual(told["perplexity"], math.exp(told["mean_nll"]), places=9)
                self.assertAlmostEqual(told["perplexity_error"],
                                       told["perplexity"] * told["mean_nll_error"], places=9)
                self.assertEqual((told["context"], told["stride"]), (context, stride))

    def test_input_and_lengths(self):
        text = shakespeare(3000).encode()
        whole = self.perplexity("-m", DEFAULT_MODEL, "-", stdin=text)
        self.assertEqual(whole["context"], 512)
        self.assertGreater(whole["tokens_per_second"], 0)
        some = self.perplexity("-m", DEFAULT_MODEL, "-", "--max-tokens", 100, stdin=text)
        self.assertEqual((some["tokens_scored"], some["tokens_read"], some["windows"]), (99, 99, 1))
        bare = self.perplexity("-m", DEFAULT_MODEL, "-", "--max-tokens", 100, "--no-special-tokens",
                               stdin=text)
        self.assertNotEqual(bare["mean_nll"], some["mean_nll"])

    def test_quantized_models_are_a_little_worse(self):
        text = self.text(12000)
        dense = self.perplexity("-m", DEFAULT_MODEL, text)["perplexity"]
        last = dense
        for bits in (8, 4, 2):
            self.output("convert", "-m", DEFAULT_MODEL, "--to", f"q{bits}", "-q", "--bits", bits)
            now = self.perplexity("-m", f"q{bits}", text)["perplexity"]
            self.assertLess(abs(now / dense - 1), {8: 0.005, 4: 0.1, 2: 1e9}[bits])
            if bits < 8:
                self.assertGreater(now, last)
            last = now

    def test_rounded_activations_cost_next_to_nothing(self):
        text = self.text()
        for bits in (8, 4):
            self.output("convert", "-m", DEFAULT_MODEL, "--to", f"q{bits}", "-q", "--bits", bits)
            fast, exact = (self.perplexity("-m", f"q{bits}", text, "--dtype", "float32", *options)["mean_nll"]
                           for options in ((), ("--exact",)))
            self.assertLess(abs(fast - exact), 0.001)  # 0.1 % of the perplexity
            self.assertNotEqual(fast, exact)

    def test_text_for_people(self):
        told = self.output("perplexity", "-m", DEFAULT_MODEL, self.text(2000))
        for part in ["perplexity  ", " ± ", "per token", "windows of 512", "tokens/s"]:
            self.assertIn(part, told)

    def test_wrong_usage_and_input(self):
        text = self.text(2000)
        model = ("perplexity", "-m", DEFAULT_MODEL)
        self.assert_fails(2, *model, says="a text is needed")
        self.assert_fails(2, *model, text, "--stride", 600, says="more than the context of 512")
        self.assert_fails(2, *model, text, "--context", 1, says="--context must be between 2")
        self.assert_fails(1, *model, "gone.txt", says="gone.txt")
        (self.scratch / "empty.txt").write_text("")
        self.assert_fails(1, *model, "empty.txt", says="at least 2 are needed")
        self.assert_fails(1, *model, text, "--memory-limit", "1M", says="needs about")
        self.assert_fails(1, "perplexity", "-m", self.folder(), text, says="tokenizer.json")


if __name__ == "__main__":
    unittest.main()
