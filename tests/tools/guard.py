"""Runs a guard of tools/ over a small tree made for one test."""

import subprocess
import tempfile
import unittest
from pathlib import Path

TOOLS = Path(__file__).resolve().parents[2] / "tools"


class GuardTest(unittest.TestCase):
    guard = ""  # the program in tools/

    def run_guard(self, files):
        """(exit code, output) over a tree of {path: text}."""
        with tempfile.TemporaryDirectory() as root:
            for path, text in files.items():
                file = Path(root, path)
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_bytes(text if isinstance(text, bytes) else text.encode())
            subprocess.run(["git", "init", "-q", root], check=True)
            done = subprocess.run([TOOLS / self.guard, "--root", root], capture_output=True, text=True)
            return done.returncode, done.stdout + done.stderr

    def assert_passes(self, files):
        code, output = self.run_guard(files)
        self.assertEqual((code, output), (0, ""))

    def assert_fails(self, files, *said):
        code, output = self.run_guard(files)
        self.assertEqual(code, 1, output)
        for text in said:
            self.assertIn(text, output)
