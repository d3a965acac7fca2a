"""--profile and --trace of the commands that compute."""

import json
import unittest

from support import DEFAULT_MODEL, CliTest

PROMPT = ("-m", DEFAULT_MODEL, "-p", "ROMEO:", "-n", 8, "--temp", 0)


class Profile(CliTest):
    def test_table_on_standard_error(self):
        plain = self.mica("generate", *PROMPT, "--quiet")
        told = self.mica("generate", *PROMPT, "--quiet", "--profile")
        self.assertEqual(told.returncode, 0, told.stderr)
        self.assertEqual(told.stdout, plain.stdout)
        self.assertEqual(plain.stderr, b"")
        lines = told.stderr.decode().splitlines()
        self.assertRegex(lines[0], r"^recorded .*: run .* \(kernels .*\), plan .*, collect .*, elsewhere")
        self.assertRegex(lines[1], r"^ceilings: read [\d.]+ GB/s, float32 [\d.]+ GFLOP/s, bfloat16 "
                         r"[\d.]+ GFLOP/s, int8 [\d.]+ GOP/s$")
        rows = {line.split()[0]: line.split() for line in lines[4:]}
        self.assertEqual(int(rows["attention"][1]), 8 * 4)  # tokens, the prompt's pass for one; layers
        self.assertIn("bfloat16", rows["matmul"])
        self.assertNotIn("-", rows["matmul"][:10])

    def test_trace_is_json_of_complete_events(self):
        self.output("generate", *PROMPT, "--trace", "trace.json")
        events = json.loads((self.scratch / "trace.json").read_text())["traceEvents"]
        calls = [e for e in events if e["ph"] == "X" and e["cat"] != "phase"]
        phases = {e["name"] for e in events if e.get("cat") == "phase"}
        self.assertEqual(phases, {"collect", "plan", "run"})
        self.assertGreater(sum(e["name"] == "matmul" for e in calls), 8 * 4 * 7)
        for event in calls:
            self.assertGreaterEqual(event["dur"], 0)
            self.assertTrue(event["args"]["outputs"])
            self.assertGreater(event["args"]["bytes"], 0)
            if event["name"] == "matmul":
                self.assertGreater(event["args"]["flops"], 0)

    def test_other_commands(self):
        (self.scratch / "text.txt").write_text("To be, or not to be, that is the question.")
        told = self.mica("perplexity", "-m", DEFAULT_MODEL, "text.txt", "--profile").stderr.decode()
        self.assertIn("\nlogsumexp ", told)
        told = self.mica("convert", "-m", DEFAULT_MODEL, "--to", "q", "-q", "--profile").stderr.decode()
        self.assertIn("\nquantize ", told)

    def test_a_trace_that_cannot_be_written(self):
        done = self.mica("generate", *PROMPT, "--trace", "gone/trace.json")
        self.assertEqual(done.returncode, 1)
        self.assertIn("gone/trace.json", done.stderr.decode())


if __name__ == "__main__":
    unittest.main()
