"""Help, version, devices, and wrong usage of the command line."""

import json

from support import MICA, CliTest

COMMANDS = ["generate", "bench", "tokenize", "detokenize", "inspect", "devices"]


class Usage(CliTest):
    def test_help(self):
        for arguments in [["--help"], ["-h"], ["help"]]:
            text = self.output(*arguments)
            for command in COMMANDS:
                self.assertIn(command, text)
        for command in COMMANDS:
            text = self.output(command, "--help")
            self.assertIn("Examples:", text)
            self.assertIn("--quiet", text)
            self.assertLessEqual(max(map(len, text.splitlines())), 100)
            self.assertEqual(self.output("help", command), text)

    def test_version(self):
        text = self.output("--version")
        self.assertRegex(text, r"^mica \d+\.\d+\.\d+\n")
        for part in ["cpu", "ref", "Highway"]:
            self.assertIn(part, text)

    def test_devices(self):
        told = json.loads(self.output("devices", "--format", "json"))["devices"]
        self.assertEqual([device["name"] for device in told], ["cpu", "ref"])
        self.assertGreaterEqual(told[0]["threads"], 1)
        self.assertGreater(told[0]["available_bytes"], 0)
        self.assertIn("cpu (default)", self.output("devices"))

    def test_no_library_measures_anything_at_the_start(self):
        self.env["LD_DEBUG"] = "bindings"
        told = self.mica("--version").stderr.decode()
        self.assertIn("binding file", told)
        measured = [line for line in told.splitlines() if "15TimerResolutionEv'" in line]
        self.assertEqual([line for line in measured if MICA not in line.split(" to ")[1]], [])

    def test_wrong_usage(self):
        cases = {
            "": "a command is needed",
            "genrate -p x": "did you mean 'generate'",
            "--versoin": "did you mean '--version'",
            "generate -p x --tmep 1": "did you mean '--temp'",
            "generate -p x --seeds=1": "did you mean '--seed'",
            "generate": "a prompt is needed",
            "generate -p x --prompt-ids 1": "exclude each other",
            "generate -p": "-p",
            "generate -p x y": "unexpected argument 'y'",
            "generate -p x -n many": "whole number",
            "generate -p x -n 1.5": "whole number",
            "generate -p x -n 99999999999999999999": "whole number",
            "generate -p x -n -1": "at least 0",
            "generate -p x -t 0": "between 1",
            "generate -p x --temp -1": "between 0",
            "generate -p x --temp nan": "between 0",
            "generate -p x --temp hot": "needs a number",
            "generate -p x --top-p 1.5": "between 0 and 1",
            "generate -p x --top-k -1": "at least 0",
            "generate -p x --repetition-penalty 0": "between",
            "generate -p x --prefill-chunk 0": "at least 1",
            "generate -p x --logit-bias 5": "ID:VALUE",
            "generate -p x --logit-bias a:1": "ID:VALUE",
            "generate -p x --stop=": "--stop",
            "generate -p x --format yaml": "text, json",
            "generate -p x --dtype float64": "float32",
            "generate -p x --device gpu": "cpu, ref",
            "generate -p x --memory-limit big": "size",
            "generate -p x --logprobs 2": "--format json",
            "generate --prompt-ids 1,x": "'x' is no token id",
            "generate --prompt-ids 1,": "after the last comma",
            "tokenize --jsonl -p x": "--jsonl",
            "inspect a -m b": "exclude each other",
            "inspect . --context 0": "at least 1",
            "devices now": "unexpected argument",
        }
        for line, says in cases.items():
            error = self.assert_fails(2, *line.split(), says=says)
            self.assertNotIn("\x1b", error)
            self.assertNotIn("no model given", error)

    def test_values_that_look_like_something_else(self):
        for prompt in ["-", "--stop", "-5", "[a,b]", "{}", "a=b", "%%", '"quoted"', ""]:
            stdin = "-" if prompt == "-" else ""
            told = self.generate("-p", prompt, "-n", 0, stdin=stdin)
            ids = json.loads(self.output("tokenize", "--jsonl", stdin=json.dumps(prompt) + "\n"))
            self.assertEqual(told["prompt_ids"], ids, prompt)

    def test_the_last_of_several_counts(self):
        self.assertEqual(len(self.generate("-p", "x", "-n", 9, "-n", 2)["ids"]), 2)
