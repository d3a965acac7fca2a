"""The language-model cases: how models are made, and what their workers answer, with programs that only
pretend."""

import os
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path
from unittest import mock

BENCH = Path(__file__).resolve().parents[2] / "bench"
sys.path.insert(0, str(BENCH))
from lm import models, worker  # noqa: E402

MICA = """#!/bin/sh
echo "$@" >>"$0.calls"
while [ "$1" != --keep ]; do shift; done
mkdir "$2"
[ -e "$0.fails" ] && exit 1
echo weights >"$2/model.safetensors"
"""

PROGRAM = """#!/usr/bin/env python3
import sys
for line in sys.stdin:
    words = line.split()
    answers = {"load": "ok 0.5", "decode": "ok 3.0", "prefill": "ok 2.0", "bytes": "ok 800", "operations": "ok 64"}
    print(answers.get(words[0], "error unknown command"), flush=True)
"""

FIRST = """#!/bin/sh
[ "$1" = silent ] || echo 5
"""


class Models(unittest.TestCase):
    def setUp(self):
        scratch = tempfile.TemporaryDirectory()
        self.addCleanup(scratch.cleanup)
        self.scratch = Path(scratch.name)
        (self.scratch / "bin").mkdir()
        self.mica = self.program("mica", MICA)
        places = {"MICA_BENCH_MODELS": str(self.scratch / "models"), "MICA_BUILD": str(self.scratch)}
        patch = mock.patch.dict(os.environ, {**places, "MICA_BENCH_THREADS": "2"})
        patch.start()
        self.addCleanup(patch.stop)

    def program(self, name, text):
        path = self.scratch / "bin" / name
        path.write_text(text)
        path.chmod(0o755)
        return path

    def test_a_model_is_made_once(self):
        model = dict(shape="llama-8b", bits=4, group=32, layers=8)
        path = models.folder(**model)
        self.assertEqual(path, models.folder(**model))
        self.assertEqual(path.name, "llama-8b-8layers-4bit32")
        [call] = Path(f"{self.mica}.calls").read_text().splitlines()
        for words in ["--shape llama-8b", "--bits 4 --group-size 32", "--layers 8", "-p 0 -n 0"]:
            self.assertIn(words, call)

    def test_half_a_model_is_none(self):
        Path(f"{self.mica}.fails").touch()
        with self.assertRaises(subprocess.CalledProcessError):
            models.folder("llama-1b")
        Path(f"{self.mica}.fails").unlink()
        self.assertTrue((models.folder("llama-1b") / "model.safetensors").exists())

    def prepared(self, overrides=(), **params):
        self.program("lm_worker", PROGRAM)
        prepare = worker.preparer(worker.Mica(None), dict(overrides))
        prepared = prepare({"params": {"model": {"shape": "llama-1b"}, **params}})
        self.addCleanup(prepared.close)
        return prepared

    def test_a_call_of_decode_is_a_token_of_one_sequence(self):
        prepared = self.prepared(batch=8, tokens=25)
        self.assertAlmostEqual(prepared.run(), 3.0 / 25 / 8)
        self.assertEqual(prepared.work, 100)
        self.assertEqual(prepared.info["weights_bytes"], 8)
        self.assertAlmostEqual(self.prepared({"batch": 1}, batch=8, tokens=25).run(), 3.0 / 25)

    def test_a_call_of_prefill_is_a_prompt(self):
        prepared = self.prepared(task="prefill")
        self.assertEqual((prepared.run(), prepared.work), (2.0, 64))

    def test_a_neighbour_spins_only_meanwhile(self):
        with worker.neighbour(False) as none, worker.neighbour(True) as spin:
            self.assertIsNone(none)
            self.assertIsNone(spin.poll())
        self.assertIsNotNone(spin.poll())

    def test_errors_of_a_program_are_told(self):
        program = worker.Program(self.program("lm_worker", PROGRAM))
        self.addCleanup(program.close)
        with self.assertRaisesRegex(RuntimeError, "nonsense 1: unknown command"):
            program.ask("nonsense", 1)

    def test_the_first_token_needs_one(self):
        side = mock.Mock(size=100, first=lambda params, ids: [self.program("first", FIRST), *ids[:1]])
        prepared = worker.prepare_first(side, {"prompt": 2})
        self.assertGreater(prepared.run(), 0)
        self.assertEqual(prepared.info["peak_over_weights"], prepared.info["peak_bytes"] / 100)
        side.first = lambda params, ids: [self.program("first", FIRST), "silent"]
        with self.assertRaisesRegex(RuntimeError, "no token"):
            worker.prepare_first(side, {"prompt": 2})


class Cases(unittest.TestCase):
    def test_every_participant_has_a_program_and_goals_are_known(self):
        from cases import language_models
        from ruler.case import check
        names = [case.name for case in language_models.CASES]
        self.assertEqual(len(set(names)), len(names))
        for case in language_models.CASES:
            check(case)
            self.assertEqual(set(case.commands), set(case.participants), case.name)


if __name__ == "__main__":
    unittest.main()
