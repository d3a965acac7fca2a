from guard import GuardTest


class CheckPlaces(GuardTest):
    guard = "check_places.py"

    def test_public_text_passes(self):
        self.assert_passes({"a.md": "src/work/x, <https://huggingface.co/docs>, http://localhost:8080/v1\n"
                            "version 10.2.3, /usr/local/lib, /proc/self/exe\n"})

    def test_machine_folders_fail(self):
        for folder in ("work", "farm", "root", "home/someone"):
            self.assert_fails({"a.txt": f"x\ncd /{folder}/x\n"}, "a.txt:2")

    def test_hosts_and_mirrors_fail(self):
        for text in ("http://registry.example." + "internal/simple", "see 192." + "168.1.20",
                     "pip install --index" + "-url x", "https://mirror.example.org" + ":8443/"):
            self.assert_fails({"a.txt": text}, "a.txt:1")

    def test_binary_files_are_not_read(self):
        self.assert_passes({"a.bin": b"\0 /ro" + b"ot/x/ "})
