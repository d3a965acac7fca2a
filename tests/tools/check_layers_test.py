from guard import GuardTest


class CheckLayers(GuardTest):
    guard = "check_layers.py"

    def test_rows_above_own_folder_and_system_headers_pass(self):
        self.assert_passes({
            "src/base/error.h": "#include <string>\n#include <sys/stat.h>\n",
            "src/core/array.h": '#include "base/error.h"\n#include "core/shape.h"\n',
            "src/backends/cpu/x.cc": '#include "hwy/highway.h"\n#include "ops/x.h"\n#include "local.h"\n',
            "src/backends/cpu/local.h": "",
            "src/mica.h": '#include "generate/engine.h"\n',
            "apps/cli/main.cc": '#include "mica.h"\n',
        })

    def test_a_row_below_fails(self):
        self.assert_fails({"src/core/a.h": '#include "ops/b.h"\n'}, "src/core may not include src/ops")

    def test_one_row_does_not_include_itself(self):
        self.assert_fails({"src/io/a.cc": '#  include "transforms/b.h"\n'}, "src/transforms")
        self.assert_fails({"src/backends/ref/a.cc": '#include "backends/cpu/b.h"\n'}, "src/backends/cpu")

    def test_relative_and_angle_includes_are_seen(self):
        self.assert_fails({"src/base/a.cc": '#include "../core/b.h"\n', "src/core/b.h": ""}, "src/core")
        self.assert_fails({"src/base/a.cc": "#include <core/b.h>\n"}, "src/core")

    def test_only_applications_include_everything(self):
        self.assert_fails({"src/nn/a.cc": '#include "mica.h"\n', "src/mica.h": ""}, "src (\"mica.h\")")

    def test_a_folder_that_is_no_level_fails(self):
        self.assert_fails({"src/utils/a.cc": ""}, "is no level")
