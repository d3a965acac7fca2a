import shutil
import unittest

from guard import GuardTest


@unittest.skipUnless(shutil.which("clang-format-19"), "clang-format-19 is a developer's package")
class CheckFormat(GuardTest):
    guard = "check_format"

    def test_formatted_code_passes(self):
        self.assert_passes({".clang-format": "BasedOnStyle: Google\n", "a.cc": "int x = 1;\n"})

    def test_other_code_fails(self):
        self.assert_fails({".clang-format": "BasedOnStyle: Google\n", "a b.cc": "int  x=1 ;\n"}, "a b.cc: not as")
