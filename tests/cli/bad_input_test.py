"""Folders and prompts that cannot work: exit code 1, a message that names the fault, no output."""

import json
import os
import resource
import struct
import subprocess

from support import LLAMA_SHAPES, MICA, CliTest, llama_header, safetensors, size_of


class BadInput(CliTest):
    def assert_refused(self, folder, *says, prompt="1,2", options=()):
        return self.assert_fails(1, "generate", "-m", folder, "--prompt-ids", prompt, "-n", 2,
                                 "--format", "json", *options, says=says)

    def test_a_good_folder_works(self):
        self.assertEqual(len(self.generate("-m", self.folder(), "--prompt-ids", "1,2", "-n", 2)["ids"]), 2)

    def test_missing_files(self):
        empty = self.scratch / "empty"
        empty.mkdir()
        self.assert_refused(empty, "config.json", "No such file")
        folder = self.folder()
        (folder / "model.safetensors").unlink()
        self.assert_refused(folder, "model.safetensors")
        (folder / "pytorch_model.bin").write_bytes(b"x")
        self.assert_refused(folder, ".bin")

    def test_files_of_other_kinds(self):
        names = ["config.json", "generation_config.json", "tokenizer.json", "model.safetensors"]
        kinds = {
            "pipe": (os.mkfifo, "not a regular file"),
            "device": (lambda path: path.symlink_to("/dev/zero"), "not a regular file"),
            "loop": (lambda path: path.symlink_to(path.name), "Too many levels"),
            "dangling": (lambda path: path.symlink_to("gone"), "No such file"),
            "folder": (lambda path: path.mkdir(), "Is a directory"),
        }
        for name in names:
            for kind, (make, says) in kinds.items():
                folder = self.copy_of_default(f"{kind}-{name}")
                (folder / name).unlink()
                make(folder / name)
                self.assert_refused(folder, name, says)

    def test_config(self):
        for number, (text, says) in enumerate([
                ("", "config.json"), ("{", "config.json"), ("[]", "config.json"),
                ("[" * 5000, "config.json"), ("{}", "model_type"), ('{"model_type": 5}', "model_type"),
                (b"\xff\xfe{}", "config.json")]):
            folder = self.folder(f"config{number}")
            data = text if isinstance(text, bytes) else text.encode()
            (folder / "config.json").write_bytes(data)
            self.assert_refused(folder, says)
        for number, (change, says) in enumerate([
                ({"model_type": "lama\x1b[2J"}, "known: gemma2, gpt2, llama"),
                ({"hidden_size": "8"}, "hidden_size"), ({"hidden_size": -8}, "hidden_size"),
                ({"num_attention_heads": 0}, "num_attention_heads"), ({"vocab_size": 1.5}, "vocab_size"),
                ({"num_attention_heads": 3}, "3"), ({"num_hidden_layers": 1 << 62}, ""),
                ({"rope_scaling": {"rope_type": "spiral"}}, "spiral"),
                ({"hidden_act": "wobble"}, "wobble")]):
            folder = self.folder(f"change{number}", config=change)
            self.assertNotIn("\x1b", self.assert_refused(folder, says))

    def test_generation_config(self):
        for number, (value, says) in enumerate([
                ({"eos_token_id": "end"}, "eos_token_id"), ([], "generation_config.json"),
                ({"do_sample": True, "temperature": -1}, "temperature"),
                ({"do_sample": True, "top_p": "all"}, "top_p")]):
            self.assert_refused(self.folder(f"generation{number}", generation_config=value), says)

    def test_tokenizer(self):
        for number, value in enumerate([{}, [], {"model": {"type": "BPE"}}]):
            folder = self.folder(f"tokenizer{number}", tokenizer=value)
            self.assert_refused(folder, "tokenizer.json")
            self.assert_fails(1, "tokenize", "-m", folder, "-p", "x", says="tokenizer.json")
        (self.scratch / "none").mkdir()
        self.assert_fails(1, "tokenize", "-m", "none", "-p", "x", says="tokenizer.json")

    def test_weights_that_are_cut(self):
        whole = safetensors(llama_header())
        for size in [0, 4, 8, 100, len(whole) - 1]:
            self.assert_refused(self.folder(f"cut{size}", weights=whole[:size]), "model.safetensors")
        self.assert_refused(self.folder("longer", weights=whole + b"x"), "model.safetensors")

    def test_headers(self):
        first, second = list(LLAMA_SHAPES)[:2]
        end = size_of(llama_header())

        def changed(name, **change):
            header = llama_header()
            header[name].update(change)
            return safetensors(header, end)

        cases = {
            "overlap": changed(second, data_offsets=[256, 768]),
            "range": changed(list(LLAMA_SHAPES)[-1], data_offsets=[end - 384 + 4096, end + 4096]),
            "reversed": changed(first, data_offsets=[512, 0]),
            "negative": changed(first, data_offsets=[-512, 0]),
            "overflow": changed(first, shape=[1 << 62, 1 << 62]),
            "huge": changed(first, data_offsets=[0, (1 << 64) - 1]),
            "size": changed(first, shape=[16, 9]),
            "dtype": changed(first, dtype="F31"),
            "shape": changed(first, shape=[16, -8]),
            "json": safetensors(b"{nonsense", 0),
            "array": safetensors(b"[]", 0),
            "length": struct.pack("<Q", 1 << 63) + b"{}",
        }
        for name, weights in cases.items():
            self.assert_refused(self.folder(name, weights=weights), "model.safetensors")

    def test_misaligned_weights_are_copied(self):
        text = json.dumps(llama_header()).encode()
        text += b" " * ((3 - len(text)) % 4)
        folder = self.folder(weights=safetensors(text, size_of(llama_header())))
        self.assertEqual(len(self.generate("-m", folder, "--prompt-ids", "1", "-n", 2)["ids"]), 2)

    def test_tensors_that_do_not_fit(self):
        name = "model.layers.0.mlp.up_proj.weight"
        wrong = {**LLAMA_SHAPES, name: [8, 12]}
        self.assert_refused(self.folder("shape", weights=safetensors(llama_header(wrong))),
                            name, "(8, 12)", "(12, 8)")
        fewer = {k: v for k, v in LLAMA_SHAPES.items() if k != name}
        self.assert_refused(self.folder("missing", weights=safetensors(llama_header(fewer))), name,
                            "missing")
        more = {**LLAMA_SHAPES, "model.extra.weight": [2]}
        self.assert_refused(self.folder("surplus", weights=safetensors(llama_header(more))),
                            "model.extra.weight")
        for dtype, width in [("I32", 4), ("F64", 8), ("F8_E4M3", 1)]:
            folder = self.folder(dtype, weights=safetensors(llama_header(dtype=dtype, width=width)))
            self.assert_refused(folder, "weight")

    def test_index_files(self):
        header = llama_header()
        for number, (index, says) in enumerate([
                ({"weight_map": {name: "../model.safetensors" for name in header}}, "../"),
                ({"weight_map": {name: "gone.safetensors" for name in header}}, "gone.safetensors"),
                ({"weight_map": []}, "weight_map"), ({}, "weight_map")]):
            folder = self.folder(f"index{number}")
            (folder / "model.safetensors.index.json").write_text(json.dumps(index))
            self.assert_refused(folder, says)

    def test_prompts(self):
        folder = self.folder()
        for ids in ["16", "1,99999999999", "-1", "1,-5"]:
            self.assert_refused(folder, "outside", prompt=ids)
        self.assert_refused(folder, "id 16 at position 2", prompt="1,2,16")
        self.assert_refused(folder, "empty", prompt="")
        self.assert_refused(folder, "bias", options=("--logit-bias", "16:1"))
        self.assert_fails(1, "generate", "-m", folder, "--prompt-ids", "-", stdin="1,x",
                          says="standard input")
        self.assert_fails(1, "generate", "-m", folder, "-p", "text", says="tokenizer.json")
        self.assert_fails(1, "generate", "-m", folder, "--prompt-ids", "1", "--stop", "x",
                          says="stop strings")

    def test_more_memory_than_there_is(self):
        self.assert_refused(self.folder(), "1.0 MiB", "cache", options=("--memory-limit", "1M"))
        # Logits and log-probabilities of a whole prompt count, too.
        wide = self.copy_of_default("wide")
        prompt = ",".join(["5"] * 3000)
        options = ("--memory-limit", "60M", "-n", 0)
        self.assert_refused(wide, "workspace", prompt=prompt,
                            options=("--prompt-logprobs", 2048, *options))
        self.assert_refused(wide, "workspace", prompt=prompt,
                            options=("--prefill-chunk", 3000, *options))
        self.generate("-m", wide, "--prompt-ids", prompt, "--prompt-logprobs", 1, *options)
        long = self.folder("long", config={"max_position_embeddings": 1 << 31,
                                           "num_hidden_layers": 1000})
        self.assert_fails(1, "generate", "-m", long, "--prompt-ids", "1", "-n", 1 << 49,
                          says=["needs about", "cache"])

    def test_memory_that_the_system_refuses(self):
        if "sanitizers" in self.output("--version"):
            return  # they reserve terabytes of addresses
        def limit():
            resource.setrlimit(resource.RLIMIT_AS, (150 << 20, 150 << 20))
        done = subprocess.run(
            [MICA, "generate", "--prompt-ids", "-", "-n", "1", "--format", "json", "-t", "1",
             "--prefill-chunk", "40000"], input=b"5 " * 40000, capture_output=True, env=self.env,
            preexec_fn=limit, timeout=120)
        self.assertEqual((done.returncode, done.stdout), (1, b""))
        self.assertIn(b"out of memory", done.stderr)
        self.assertIn(b"--prefill-chunk", done.stderr)

    def test_weights_of_other_methods(self):
        folder = self.folder(config={"quantization_config": {"quant_method": "gptq"}})
        self.assert_refused(folder, "gptq")
