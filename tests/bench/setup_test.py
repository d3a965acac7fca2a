"""bench/setup: what a peer that fails leaves behind, and the stubs that torch loads with."""

import ctypes
import json
import os
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

BENCH = Path(__file__).resolve().parents[2] / "bench"
sys.path.insert(0, str(BENCH))
from ruler import openblas, stubs  # noqa: E402


class Setup(unittest.TestCase):
    """Against an environment whose interpreter counts its calls and fails."""

    def setUp(self):
        scratch = tempfile.TemporaryDirectory()
        self.addCleanup(scratch.cleanup)
        self.venv = Path(scratch.name, "venv")
        python = self.venv / "bin/python"
        python.parent.mkdir(parents=True)
        python.write_text('#!/bin/sh\necho x >>"$0.calls"\necho "error: no such wheel"\nexit 1\n')
        python.chmod(0o755)

    def run_setup(self, *arguments):
        return subprocess.run([BENCH / "setup", *arguments], capture_output=True, text=True,
                              env={**os.environ, "MICA_BENCH_VENV": str(self.venv)})

    def calls(self):
        return len((self.venv / "bin/python.calls").read_text().split())

    def test_a_peer_that_fails_is_noted_and_the_others_go_on(self):
        done = self.run_setup("numpy", "scipy")
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertIn("absent: numpy, scipy", done.stdout)
        peers = json.loads((self.venv / "peers.json").read_text())
        self.assertIn("no such wheel", peers["numpy"]["absent"])
        self.assertIn("no such wheel", peers["scipy"]["absent"])

    def test_it_is_tried_again_on_request_only(self):
        self.run_setup("numpy")
        before = self.calls()
        self.run_setup("numpy")
        self.assertEqual(self.calls(), before)
        self.run_setup("--retry", "numpy")
        self.assertGreater(self.calls(), before)

    def test_unknown_peers_are_refused(self):
        done = self.run_setup("nunpy")
        self.assertEqual(done.returncode, 2)
        self.assertIn("unknown peer 'nunpy'", done.stderr)


class Stubs(unittest.TestCase):
    def compile(self, name, code, *options):
        source = self.folder / "source.c"
        source.write_text(code)
        subprocess.run(["gcc", "-shared", "-fPIC", "-o", self.folder / name, source, f"-Wl,-soname,{name}", *options],
                       check=True)
        source.unlink()

    def test_a_library_loads_with_stubs_of_those_that_it_lacks(self):
        with tempfile.TemporaryDirectory() as folder:
            self.folder = Path(folder)
            script = self.folder / "map"
            script.write_text("V13 { cuVersioned; };\n")
            self.compile("libcuone.so.13", "int cuVersioned(void) { return 1; }", f"-Wl,--version-script={script}")
            self.compile("libnvtwo.so.1", "int nvPlain(void) { return 2; }")
            self.compile("libuser.so", "int cuVersioned(void); int nvPlain(void);\n"
                         "int (*pointer)(void) = cuVersioned;\n"
                         "int sum(void) { return pointer() + nvPlain(); }",
                         self.folder / "libcuone.so.13", self.folder / "libnvtwo.so.1", "-Wl,-rpath,$ORIGIN")
            (self.folder / "libcuone.so.13").unlink()
            (self.folder / "libnvtwo.so.1").unlink()
            with self.assertRaises(OSError):
                ctypes.CDLL(str(self.folder / "libuser.so"))
            self.assertEqual(stubs.make(self.folder), ["libcuone.so.13", "libnvtwo.so.1"])
            user = ctypes.CDLL(str(self.folder / "libuser.so"), os.RTLD_NOW)
            self.assertEqual(user.sum(), 2 * stubs.NO_DEVICE)
            self.assertEqual(stubs.make(self.folder), [])  # nothing is missing any more

    def test_libraries_of_others_are_left_alone(self):
        with tempfile.TemporaryDirectory() as folder:
            self.folder = Path(folder)
            self.compile("libother.so.1", "int other(void) { return 1; }")
            self.compile("libuser.so", "int other(void); int f(void) { return other(); }", self.folder / "libother.so.1")
            (self.folder / "libother.so.1").unlink()
            self.assertEqual(stubs.make(self.folder), [])


class OpenBlas(unittest.TestCase):
    def test_the_choice_of_the_library_itself_is_always_tried(self):
        self.assertEqual(openblas.candidates()[0], "")


if __name__ == "__main__":
    unittest.main()
