"""mica tokenize and detokenize."""

import json
import shutil
import subprocess

from support import DEFAULT_MODEL, MICA, CliTest

TEXTS = ["ROMEO:\n", "", "two words", "  spaces  ", "naïve — 日本語 🎭", "tab\tand\u0000nul", "x" * 2000]


def jsonl(values, **options):
    return "".join(json.dumps(value, **options) + "\n" for value in values)


def read(text):
    return [json.loads(line) for line in text.splitlines()]


class Text(CliTest):
    def tokenize(self, *options, stdin):
        return read(self.output("tokenize", "--jsonl", "--quiet", *options, stdin=stdin))

    def test_round_trip(self):
        ids = self.tokenize(stdin=jsonl(TEXTS))
        self.assertEqual(len(ids), len(TEXTS))
        self.assertEqual(ids[0], [0, 848, 270])
        for lines in [jsonl(ids), jsonl(ids).rstrip("\n")]:
            back = self.output("detokenize", "--jsonl", "--quiet", stdin=lines)
            self.assertEqual(read(back), TEXTS)

    def test_escapes_do_not_matter(self):
        self.assertEqual(self.tokenize(stdin=jsonl(TEXTS)),
                         self.tokenize(stdin=jsonl(TEXTS, ensure_ascii=False)))

    def test_special_tokens(self):
        self.assertEqual(self.tokenize("--no-special-tokens", stdin=jsonl(TEXTS[:2])), [[848, 270], []])
        kept = self.output("detokenize", "--jsonl", "--quiet", "--keep-special-tokens",
                           stdin="[0, 848, 270]\n")
        self.assertTrue(read(kept)[0].endswith("ROMEO:\n"))
        self.assertNotEqual(read(kept)[0], "ROMEO:\n")

    def test_only_the_tokenizer_is_needed(self):
        folder = self.scratch / "alone"
        folder.mkdir()
        shutil.copy(DEFAULT_MODEL / "tokenizer.json", folder)
        self.assertEqual(self.output("tokenize", "-m", folder, "-p", "ROMEO:\n"), "0,848,270\n")

    def test_friendly_forms(self):
        self.assertEqual(self.output("tokenize", "--quiet", stdin="ROMEO:\n"), "0,848,270\n")
        told = json.loads(self.output("tokenize", "-p", "ROMEO:\n", "--format", "json"))
        self.assertEqual(told["ids"], [0, 848, 270])
        self.assertEqual(len(told["tokens"]), 3)
        for ids in ["0,848,27", "0 848  27", "[0, 848 ,27]"]:
            self.assertEqual(self.output("detokenize", "--ids", ids), "ROMEO:\n")
        self.assertEqual(self.output("detokenize", stdin="0\n848\n27\n"), "ROMEO:\n")
        told = json.loads(self.output("detokenize", "--ids", "0,848,27", "--format", "json"))
        self.assertEqual(told, {"text": "ROMEO:"})

    def test_malformed_lines_are_named(self):
        for line in ["{", "5", "null", "", '"open', '["a"]']:
            done = self.mica("tokenize", "--jsonl", "--quiet", stdin='"fine"\n' + line + '\n"x"\n')
            self.assertEqual(done.returncode, 1, line)
            self.assertIn("line 2", done.stderr.decode())
            self.assertEqual(len(done.stdout.splitlines()), 1)
        for line in ["[1, 2.5]", '"text"', "[99999999]", "[-1]", "[99999999999999999999]", "[1,"]:
            done = self.mica("detokenize", "--jsonl", "--quiet", stdin="[1]\n" + line + "\n")
            self.assertEqual(done.returncode, 1, line)
            self.assertIn("line 2", done.stderr.decode())

    def test_answers_do_not_wait_for_more_lines(self):
        process = subprocess.Popen([MICA, "tokenize", "--jsonl", "--quiet"], stdin=subprocess.PIPE,
                                   stdout=subprocess.PIPE, env=self.env)
        self.addCleanup(process.communicate)
        for _ in range(2):
            process.stdin.write(b'"ROMEO:"\n')
            process.stdin.flush()
            self.assertEqual(json.loads(process.stdout.readline()), [0, 848, 27])

    def test_many_lines(self):
        lines = jsonl([f"line {i}" for i in range(20000)])
        self.assertEqual(len(self.tokenize(stdin=lines)), 20000)
