"""mica bench: what it measures and tells, its random models, and what it leaves behind."""

import json
import os
import signal
import subprocess
import time
from pathlib import Path

from support import MICA, CliTest

QUICK = ["-r", 2, "-n", 3, "-p", 16]


class Bench(CliTest):
    def setUp(self):
        super().setUp()
        self.temporary = self.scratch / "tmp"
        self.temporary.mkdir()
        self.env["TMPDIR"] = str(self.temporary)

    def tearDown(self):
        self.assertEqual(list(self.temporary.iterdir()), [])

    def bench(self, *arguments):
        return json.loads(self.output("bench", *arguments, "--format", "json"))

    def test_json_tells_every_case(self):
        told = self.bench("--shape", "tiny-llama", "--bits", 4, "--group-size", 32, "-p", "16,32",
                          "-n", 4, "-b", "1,3", "--depth", "0,20", "-r", 3, "-t", 1)
        self.assertEqual(told["model"]["shape"], "tiny-llama")
        self.assertEqual(told["model"]["parameters"], 426624)
        self.assertEqual(told["model"]["storage"], "4 bits in groups of 32, bfloat16")
        self.assertEqual(told["threads"], 1)
        self.assertGreater(told["first_token_s"], told["load_s"])
        self.assertGreater(told["peak_rss_bytes"], told["model"]["bytes"])
        for ceiling in ["read_bytes_per_s", "int8_ops_per_s"]:
            self.assertGreater(told["ceilings"][ceiling]["min"], 0)
        cases = [(r["test"], r["tokens"], r["batch"], r["depth"]) for r in told["results"]]
        self.assertEqual(cases, [("prompt", 16, 1, 0), ("prompt", 32, 1, 0),
                                 ("generate", 4, 1, 0), ("generate", 4, 3, 0),
                                 ("generate", 4, 1, 20), ("generate", 4, 3, 20)])
        for result in told["results"]:
            self.assertEqual(len(result["seconds"]), 3)
            speed = result["tokens_per_s"]
            self.assertLessEqual(speed["min"], speed["median"])
            self.assertLessEqual(speed["median"], speed["max"])
            fastest = result["tokens"] * result["batch"] / min(result["seconds"])
            self.assertAlmostEqual(speed["max"] / fastest, 1)
            self.assertGreater(result["ceiling_share"]["median"], 0)
        # Keys and values of 20 more positions: 2 layers of 2 x 64 in bfloat16.
        reads = [r["bytes_per_step"] for r in told["results"][2:]]
        self.assertEqual(reads[2] - reads[0], 19 * 2 * 2 * 64 * 2)
        self.assertEqual(reads[3] - reads[1], 3 * 19 * 2 * 2 * 64 * 2)

    def test_a_model_of_ones_own(self):
        folder, _ = self.reference_case("gemma2")
        told = self.bench("-m", folder, *QUICK)
        self.assertIsNone(told["model"]["shape"])
        self.assertEqual(told["model"]["model_type"], "gemma2")
        self.assertEqual(len(told["results"]), 2)
        self.assertIn("float32_ops_per_s", told["ceilings"])

    def test_exact_products_are_those_of_the_activations(self):
        for arguments, ceiling in [([], "int8_ops_per_s"), (["--exact"], "bfloat16_ops_per_s"),
                                   (["--exact", "--dtype", "float32"], "float32_ops_per_s")]:
            told = self.bench("--shape", "tiny-llama", "--bits", 4, *QUICK, *arguments)
            self.assertEqual(list(told["ceilings"]), ["read_bytes_per_s", ceiling])

    def test_table(self):
        text = self.output("bench", "--shape", "tiny-moe", "--layers", 1, "--dtype", "float32",
                           *QUICK)
        self.assertIn("tiny-moe with random weights, cut to 1 layer,", text)
        self.assertIn("float32", text)
        self.assertRegex(text, r"prompt 16 +1 +0 +[\d.]+ +[\d.]+ to [\d.]+ +\d+ % of arithmetic")
        self.assertRegex(text, r"generate 3 +1 +0 .* % of reading memory")

    def test_kept_models_are_models(self):
        folder = self.scratch / "new/kept"
        self.bench("--shape", "tiny-llama", "--bits", 8, "--seed", 5, "--keep", folder, *QUICK)
        told = json.loads(self.output("inspect", folder, "--format", "json"))
        self.assertEqual(told["quantization"],
                         {"bits": 8, "group_size": 64, "mode": "affine"})
        self.assertEqual(told["parameters"], 426624)
        self.assertEqual(len(self.generate("-m", folder, "--prompt-ids", "1,2", "-n", 4)["ids"]), 4)
        self.assert_fails(1, "bench", "--shape", "tiny-llama", "--keep", folder, *QUICK,
                          says=str(folder))

    def test_a_model_may_only_be_written(self):
        folder = self.scratch / "only"
        text = self.output("bench", "--shape", "tiny-moe", "--keep", folder, "-p", 0, "-n", 0)
        self.assertEqual(text, "")
        told = json.loads(self.output("inspect", folder, "--format", "json"))
        self.assertEqual(told["dtypes"]["bfloat16"]["elements"], told["parameters"])

    def test_wrong_usage(self):
        for line, says in {
            "--shape lama-1b": "llama-1b",
            "--shape tiny-llama -m x": "exclude each other",
            "--bits 4": "need --shape",
            "--shape tiny-llama --group-size 64": "needs --bits",
            "--shape tiny-llama --bits 9": "between 2 and 8",
            "--shape tiny-llama -p 0 -n 0": "nothing to measure",
            "--shape tiny-llama -p 1,x": "separated by commas",
            "--shape tiny-llama -b 0": "between 1 and",
            "--shape tiny-llama -r 0": "between 1 and",
        }.items():
            self.assert_fails(2, "bench", *line.split(), says=says)

    def test_what_cannot_run_is_an_error(self):
        for line, says in {
            "--shape tiny-llama --bits 7": "bits",
            "--shape tiny-llama --bits 4 --group-size 48": "group_size",
            "--shape tiny-llama --layers 3": "has 2 layers",
            "--shape gpt2-124m --layers 1 -p 2000": "1024 positions",
            "--shape tiny-llama --keep /dev/null/x": "/dev/null/x",
            "-m nowhere": "nowhere",
        }.items():
            self.assert_fails(1, "bench", *line.split(), says=says)

    def interrupt(self, moment, *arguments):
        process = subprocess.Popen([MICA, "bench", *map(str, arguments)], env=self.env,
                                   cwd=self.scratch, stdout=subprocess.PIPE,
                                   stderr=subprocess.PIPE)
        moment(process)
        process.send_signal(signal.SIGINT)
        output, error = process.communicate(timeout=60)
        self.assertEqual((process.returncode, output), (130, b""), error)

    def wait_until(self, happened):
        for _ in range(6000):
            if happened():
                return
            time.sleep(0.005)
        self.fail("it never happened")

    def test_an_interrupt_while_the_model_is_written(self):
        self.interrupt(lambda process: self.wait_until(lambda: os.listdir(self.temporary)),
                       "--shape", "gpt2-124m", "-n", 1000, "-r", 1000)

    def test_an_interrupt_while_measuring(self):
        # Once the model is mapped its folder is gone, whatever happens next.
        def measuring(process):
            maps = Path(f"/proc/{process.pid}/maps")
            self.wait_until(lambda: "(deleted)" in maps.read_text())

        self.interrupt(measuring, "--shape", "tiny-llama", "-n", 1000, "-r", 10000)
