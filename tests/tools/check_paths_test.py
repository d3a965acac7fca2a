from guard import GuardTest

GOOD = {"README.md": "See [the map](docs/architecture.md#levels), `make run` and `src/base/error.h`.\n",
        "docs/architecture.md": "`src/base/error.{h,cc}` and `src/ops/<family>.cc` or `src/ops/x.cc`; [up](../README.md)\n",
        "src/base/error.h": "", "src/base/error.cc": "", "src/ops/matmul.cc": ""}


class CheckPaths(GuardTest):
    guard = "check_paths.py"

    def test_paths_that_exist_pass(self):
        self.assert_passes(GOOD)

    def test_words_that_are_no_paths_pass(self):
        self.assert_passes({**GOOD, "docs/a.md": "`org/name`, `build/release`, `a/b`, <https://x.org/src/y>\n"
                            "```\ncat src/none.cc\n```\n"})

    def test_missing_paths_fail(self):
        self.assert_fails({**GOOD, "docs/a.md": "\n`src/base/none.h`\n"}, "docs/a.md:2: src/base/none.h")
        self.assert_fails({**GOOD, "docs/a.md": "[x](none.md)\n"}, "none.md")
        self.assert_fails({**GOOD, "docs/a.md": "`src/base/{error,none}.h`\n"}, "src/base/none.h")
        self.assert_fails({**GOOD, "docs/a.md": "`src/models/<family>.cc`\n"}, "src/models/*.cc")
        self.assert_fails({**GOOD, "docs/a.md": "`src/models/x.cc`\n"}, "src/models/*.cc")
        self.assert_fails({**GOOD, "docs/a.md": "`NOTICE.md`, `Makefile`\n"}, "NOTICE.md", "Makefile")

    def test_the_map_names_every_folder(self):
        self.assert_fails({**GOOD, "src/io/npy.cc": ""}, "does not name src/io")
        self.assert_fails({"README.md": ""}, "docs/architecture.md: missing")
