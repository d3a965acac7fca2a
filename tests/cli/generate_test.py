"""mica generate: the JSON contract, sampling, where answers end, streaming, interruption."""

import json
import math
import os
import select
import signal
import subprocess
import time

from support import DEFAULT_MODEL, MICA, CliTest

EXPECTED = json.loads(DEFAULT_MODEL.joinpath("expected.json").read_text())
PROMPT, GREEDY = EXPECTED["prompt"], EXPECTED["greedy_ids"]
VOCABULARY = 2048


class Contract(CliTest):
    def test_default_model_writes_what_is_expected(self):
        # In float32: bfloat16 decides near ties by the order of sums, which vectors' widths set.
        answer = self.generate("-p", PROMPT, "-n", len(GREEDY), "--temp", 0, "--dtype", "float32")
        self.assertEqual(answer["prompt_ids"], EXPECTED["prompt_ids"])
        self.assertEqual(answer["ids"], GREEDY)
        self.assertEqual(answer["text"], EXPECTED["greedy_text"])
        self.assertEqual(answer["finish_reason"], "length")

    def test_every_field(self):
        answer = self.generate("--prompt-ids", "0,848,270", "-n", 5)
        self.assertEqual(list(answer), ["prompt_ids", "ids", "text", "finish_reason", "logprobs",
                                        "prompt_logprobs", "usage", "timing", "memory"])
        self.assertIsNone(answer["logprobs"])
        self.assertIsNone(answer["prompt_logprobs"])
        self.assertEqual(answer["usage"],
                         {"prompt_tokens": 3, "completion_tokens": 5, "total_tokens": 8})
        self.assertEqual(list(answer["timing"]), ["load_s", "first_token_s", "prompt_tokens_per_s",
                                                  "generation_tokens_per_s"])
        for name, value in answer["timing"].items():
            self.assertGreater(value, 0, name)
        self.assertEqual(list(answer["memory"]), ["peak_rss_bytes", "weights_bytes", "cache_bytes"])
        self.assertEqual(answer["memory"]["weights_bytes"], 2 * 3475712)
        self.assertGreater(answer["memory"]["cache_bytes"], 0)
        self.assertGreater(answer["memory"]["peak_rss_bytes"], 0)

    def test_only_the_object_is_written(self):
        done = self.mica("generate", "-p", PROMPT, "-n", 3, "--format", "json", "--quiet")
        json.loads(done.stdout)
        self.assertEqual(done.stderr, b"")

    def test_logprobs_over_the_whole_vocabulary(self):
        answer = self.generate("-p", PROMPT, "-n", 3, "--logprobs", VOCABULARY,
                               "--prompt-logprobs", VOCABULARY, "--dtype", "float32")
        self.assertEqual([one["id"] for one in answer["logprobs"]], answer["ids"])
        self.assertEqual(len(answer["prompt_logprobs"]), 3)
        rows = [one["top"] for one in answer["logprobs"]] + answer["prompt_logprobs"]
        for row in rows:
            self.assertEqual(sorted(id for id, _ in row), list(range(VOCABULARY)))
            values = [value for _, value in row]
            self.assertEqual(values, sorted(values, reverse=True))
            self.assertAlmostEqual(sum(map(math.exp, values)), 1, places=4)
        for one in answer["logprobs"]:
            self.assertEqual([one["id"], one["logprob"]], one["top"][0])
        # The row after the last prompt token is that of the first new one.
        self.assertEqual(answer["prompt_logprobs"][-1], answer["logprobs"][0]["top"])
        expected = dict(map(tuple, EXPECTED["top5"]))
        got = dict(map(tuple, answer["prompt_logprobs"][-1]))
        shift = got[42] - expected[42]
        for id, logit in expected.items():
            self.assertAlmostEqual(got[id] - logit, shift, places=1)

    def test_logprobs_are_those_before_sampling(self):
        plain = self.generate("-p", PROMPT, "-n", 1, "--logprobs", 4)
        bent = self.generate("-p", PROMPT, "-n", 1, "--logprobs", 4, "--logit-bias", "7:1000")
        self.assertEqual(bent["ids"], [7])
        self.assertEqual(bent["logprobs"][0]["top"], plain["logprobs"][0]["top"])

    def test_zero_alternatives_and_zero_tokens(self):
        answer = self.generate("-p", PROMPT, "-n", 1, "--logprobs", 0)
        self.assertEqual(answer["logprobs"][0]["top"], [])
        answer = self.generate("-p", PROMPT, "-n", 0, "--prompt-logprobs", 1)
        self.assertEqual((answer["ids"], answer["text"]), ([], ""))
        self.assertEqual(answer["finish_reason"], "length")
        self.assertEqual(len(answer["prompt_logprobs"]), 3)

    def test_ways_to_run_agree(self):
        for options in [("--prefill-chunk", 1), ("--no-kv-cache",), ("-t", 1), ("--device", "ref")]:
            answer = self.generate("-p", PROMPT, "-n", 6, "--dtype", "float32", *options)
            self.assertEqual(answer["ids"], GREEDY[:6], options)
            if "--no-kv-cache" in options:
                self.assertEqual(answer["memory"]["cache_bytes"], 0)

    def test_folder_without_tokenizer(self):
        folder = self.copy_of_default(tokenizer=None)
        answer = self.generate("-m", folder, "--prompt-ids", "0,848,270", "-n", 3)
        self.assertIsNone(answer["text"])
        self.assertEqual(answer["ids"], GREEDY[:3])
        text = self.output("generate", "-m", folder, "--prompt-ids", "0,848,270", "-n", 3, "--quiet")
        self.assertEqual(text, ",".join(map(str, GREEDY[:3])) + "\n")
        self.assert_fails(1, "generate", "-m", folder, "-p", "x", says="tokenizer.json")

    def test_prompts_from_standard_input(self):
        for source in [("-p", "-", PROMPT), ("--prompt-ids", "-", "[0, 848,270]\n")]:
            answer = self.generate(*source[:2], "-n", 2, stdin=source[2])
            self.assertEqual(answer["prompt_ids"], EXPECTED["prompt_ids"])
            self.assertEqual(answer["ids"], GREEDY[:2])

    def test_text_and_notes(self):
        done = self.mica("generate", "-p", PROMPT, "-n", 40)
        self.assertEqual(done.stdout.decode().rstrip("\n"),
                         self.generate("-p", PROMPT, "-n", 40)["text"].rstrip("\n"))
        notes = done.stderr.decode()
        for text in ["shakespeare-3m", "Qwen/Qwen3-0.6B", "generated 40 tokens"]:
            self.assertIn(text, notes)
        self.assertEqual(self.mica("generate", "-p", PROMPT, "-n", 4, "--quiet").stderr, b"")


class Sampling(CliTest):
    def test_seeds(self):
        def sample(seed):
            return self.generate("-p", PROMPT, "-n", 20, "--temp", 1, "--seed", seed)["ids"]
        self.assertEqual(sample(7), sample(7))
        self.assertNotEqual(sample(7), sample(8))

    def test_filters_down_to_one_are_greedy(self):
        for filter in [("--top-k", 1), ("--top-p", 0), ("--min-p", 1)]:
            answer = self.generate("-p", PROMPT, "-n", 8, "--temp", 1, *filter)
            self.assertEqual(answer["ids"], GREEDY[:8], filter)

    def test_precedence(self):
        folder = self.copy_of_default(generation_config={
            "eos_token_id": 1, "do_sample": True, "temperature": 0.9, "top_k": 1})
        self.assertEqual(self.generate("-m", folder, "-p", PROMPT, "-n", 8)["ids"], GREEDY[:8])
        sampled = self.generate("-m", folder, "-p", PROMPT, "-n", 30, "--top-k", 0, "--seed", 3)
        self.assertNotEqual(sampled["ids"], GREEDY[:30])
        greedy = self.generate("-m", folder, "-p", PROMPT, "-n", 8, "--top-k", 0, "--temp", 0)
        self.assertEqual(greedy["ids"], GREEDY[:8])
        # Without do_sample the file's temperature is not used.
        folder = self.copy_of_default("other", generation_config={"temperature": 1.5})
        self.assertEqual(self.generate("-m", folder, "-p", PROMPT, "-n", 8)["ids"], GREEDY[:8])

    def test_penalties_and_bias(self):
        for option in ["--repetition-penalty=1000000", "--presence-penalty=1000",
                       "--frequency-penalty=1000"]:
            ids = self.generate("-p", PROMPT, "-n", 30, option)["ids"]
            self.assertEqual(len(set(ids)), len(ids), option)
        answer = self.generate("-p", PROMPT, "-n", 2, "--logit-bias", "42:-100",
                               "--logit-bias", "9:50")
        self.assertEqual(answer["ids"], [9, 9])
        done = self.mica("generate", "-p", PROMPT, "-n", 1, "--top-k", 5)
        self.assertIn("greedy", done.stderr.decode())


class Ends(CliTest):
    def test_eos(self):
        answer = self.generate("-p", PROMPT, "-n", 9, "--logit-bias", "1:1000")
        self.assertEqual((answer["ids"], answer["text"]), ([1], ""))
        self.assertEqual(answer["finish_reason"], "stop")
        self.assertEqual(answer["usage"]["completion_tokens"], 1)
        answer = self.generate("-p", PROMPT, "-n", 3, "--logit-bias", "1:1000", "--ignore-eos")
        self.assertEqual((answer["ids"], answer["finish_reason"]), ([1, 1, 1], "length"))

    def test_where_eos_ids_come_from(self):
        config = json.loads(DEFAULT_MODEL.joinpath("config.json").read_text())
        third = GREEDY[2]
        cases = {
            "list": ({"eos_token_id": [1, third]}, 1),
            "one": ({"eos_token_id": third}, 1),
            "config": ({}, third),
            "absent": (None, [5, third]),
        }
        for name, (generation, eos) in cases.items():
            folder = self.copy_of_default(name, generation_config=generation,
                                          config={**config, "eos_token_id": eos})
            answer = self.generate("-m", folder, "-p", PROMPT, "-n", 9)
            self.assertEqual((answer["ids"], answer["finish_reason"]), (GREEDY[:3], "stop"), name)

    def test_stop_text_across_tokens(self):
        full = EXPECTED["greedy_text"]
        for stop in ["be a b", "\n\nMER", "I am"]:
            answer = self.generate("-p", PROMPT, "-n", 60, "--stop", "never there", "--stop", stop)
            self.assertEqual(answer["text"], full[:full.index(stop)])
            self.assertEqual(answer["finish_reason"], "stop")
            self.assertEqual(answer["ids"], GREEDY[:len(answer["ids"])])
            self.assertLess(len(answer["ids"]), 60)

    def test_contexts(self):
        answer = self.generate("-p", PROMPT, "-n", 50, "--max-context", 10)
        self.assertEqual((len(answer["ids"]), answer["finish_reason"]), (7, "length"))
        answer = self.generate("-p", PROMPT, "-n", 50, "--max-context", 4)
        self.assertEqual(answer["usage"]["total_tokens"], 4)
        self.assert_fails(1, "generate", "-p", PROMPT, "--max-context", 2, says="3 tokens")
        self.assert_fails(1, "generate", "-p", PROMPT, "--max-context", 3, says="none for new ones")
        answer = self.generate("-p", PROMPT, "-n", 0, "--max-context", 3, "--prompt-logprobs", 1)
        self.assertEqual(len(answer["prompt_logprobs"]), 3)

    def test_past_the_trained_positions(self):
        short = self.folder()  # 32 positions
        done = self.mica("generate", "-m", short, "--prompt-ids", "1,2", "-n", 40, "--ignore-eos",
                         "--format", "json")
        self.assertEqual(len(json.loads(done.stdout)["ids"]), 40)
        self.assertIn("warning", done.stderr.decode())
        done = self.mica("generate", "-m", short, "--prompt-ids", "1,2", "-n", 4)
        self.assertNotIn("warning", done.stderr.decode())

    def test_learned_positions_end(self):
        folder, case = self.reference_case("gpt2")
        config = json.loads(folder.joinpath("config.json").read_text())
        most = config["n_positions"]
        ids = ",".join(map(str, case["input_ids"]))
        answer = self.generate("-m", folder, "--prompt-ids", ids, "-n", 16, "--ignore-eos",
                               "--dtype", "float32")
        self.assertEqual(answer["ids"], case["greedy"])
        self.assert_fails(1, "generate", "-m", folder, "--prompt-ids", ids, "-n", most,
                          says=[str(most), "positions"])
        long = ",".join(["1"] * (most + 1))
        self.assert_fails(1, "generate", "-m", folder, "--prompt-ids", long, says="learned")
        answer = self.generate("-m", folder, "--prompt-ids", long[:-4], "--ignore-eos")
        self.assertEqual(answer["usage"]["total_tokens"], most)


class Streams(CliTest):
    """The answer of a process that runs while the test looks at it."""

    def start(self, *arguments):
        process = subprocess.Popen([MICA, "generate", "-p", PROMPT, "-n", "1000000", "--ignore-eos",
                                    *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                   env=self.env)
        self.addCleanup(process.communicate)
        self.addCleanup(process.kill)
        return process

    def test_text_comes_as_it_is_made_and_ctrl_c_ends_it(self):
        process = self.start()
        text = b""
        for _ in range(3):
            text += os.read(process.stdout.fileno(), 1 << 16)
        self.assertIsNone(process.poll())
        self.assertEqual(text.decode()[:20], EXPECTED["greedy_text"][:len(text)][:20])
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
        self.assertEqual(process.returncode, 130)
        self.assertIn("(interrupt)", errors.decode())

    def test_interrupted_object(self):
        process = self.start("--format", "json")
        # The note on the default model says that it has begun.
        select.select([process.stderr], [], [], 60)
        time.sleep(0.3)
        process.send_signal(signal.SIGINT)
        output, _ = process.communicate(timeout=60)
        self.assertEqual(process.returncode, 130)
        answer = json.loads(output)
        self.assertEqual(answer["finish_reason"], "interrupt")
        self.assertEqual(answer["ids"][:20], GREEDY[:len(answer["ids"])][:20])

    def test_interrupted_in_a_long_prompt(self):
        process = subprocess.Popen([MICA, "generate", "--prompt-ids", "-", "--format", "json"],
                                   stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                   stderr=subprocess.PIPE, env=self.env)
        process.stdin.write(b"5 " * 100_000)
        process.stdin.close()
        process.stdin = None
        warnings = b""
        while b"warning" not in warnings:  # the prompt was read
            warnings += os.read(process.stderr.fileno(), 1 << 16)
        time.sleep(0.3)
        process.send_signal(signal.SIGINT)
        output, _ = process.communicate(timeout=60)
        self.assertEqual(process.returncode, 130)
        answer = json.loads(output)
        self.assertEqual((answer["ids"], answer["text"]), ([], ""))
        self.assertEqual(answer["finish_reason"], "interrupt")
        self.assertEqual(answer["timing"]["prompt_tokens_per_s"], 0)

    def test_interrupted_while_it_waits_for_its_prompt(self):
        process = subprocess.Popen([MICA, "generate", "-p", "-"], stdin=subprocess.PIPE,
                                   stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=self.env)
        select.select([process.stderr], [], [], 60)
        time.sleep(0.2)
        process.send_signal(signal.SIGINT)
        self.assertEqual(process.wait(timeout=60), 130)
        process.communicate()

    def test_closed_pipe_is_silent(self):
        process = self.start("--quiet")
        os.read(process.stdout.fileno(), 1)
        process.stdout.close()
        self.assertEqual(process.wait(timeout=60), 128 + signal.SIGPIPE)
        self.assertEqual(process.stderr.read(), b"")
        process.stderr.close()

    def test_full_disk_is_an_error(self):
        with open("/dev/full", "wb") as full:
            done = subprocess.run([MICA, "generate", "-p", "x", "-n", "1", "--quiet"], stdout=full,
                                  stderr=subprocess.PIPE, env=self.env, timeout=60)
        self.assertEqual(done.returncode, 1)
        self.assertIn(b"No space left", done.stderr)
