"""The ruler: its arithmetic, its driver against workers of a few lines, the declarations of cases."""

import argparse
import contextlib
import json
import math
import os
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path
from unittest import mock

BENCH = Path(__file__).resolve().parents[2] / "bench"
sys.path.insert(0, str(BENCH))
from ruler import ceilings, client, driver, micro, protocol, report, results  # noqa: E402
from ruler.case import Case, all_cases, check, matching  # noqa: E402

WORKER = """
import sys
sys.path.insert(0, {bench!r})
from ruler.protocol import Absent, Prepared, serve
def prepare(request):
    {body}
serve(prepare)
"""


def measured(**seconds):
    """A record of rounds given as lists, as if the driver had taken them."""
    case = Case("a/b", None, peers=tuple(who for who in seconds if who not in ("mica", "ceiling")), work=8.0,
                ceiling="read" if "ceiling" in seconds else None, goals={"best": 2.0})
    replies = {who: {"repetitions": 1} for who in seconds}
    replies.get("ceiling", {})["work"] = 16.0
    return results.record(case, seconds, replies, {}, {})


class Alone(unittest.TestCase):
    def test_runs_take_turns(self):
        code = (f"import sys; sys.path.insert(0, {str(BENCH)!r})\nfrom ruler.alone import alone\n"
                "with alone():\n    print('mine', flush=True); sys.stdin.readline()\n")
        with tempfile.TemporaryDirectory() as folder:
            def start():
                return subprocess.Popen([sys.executable, "-c", code], env={**os.environ, "TMPDIR": folder}, text=True,
                                        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
            with start() as first:
                self.assertEqual(first.stdout.readline(), "mine\n")
                with start() as second:
                    self.assertIn("waiting", second.stderr.readline())
                    self.assertIsNone(second.poll())
                    first.kill()  # however it ends
                    self.assertEqual(second.stdout.readline(), "mine\n")
                    second.communicate("\n")


class Results(unittest.TestCase):
    def test_ratios_are_taken_round_by_round(self):
        found = measured(mica=[1.0, 2.0, 10.0], torch=[2.0, 6.0, 20.0], numpy=[4.0, 8.0, 40.0])
        self.assertEqual(found["ratios"]["torch"], {"min": 2.0, "median": 2.0, "max": 3.0, "least": 2.0})
        self.assertEqual(found["best"], "torch")
        self.assertEqual(found["goals"]["best"], {"target": 2.0, "value": 2.0, "met": True})

    def test_the_fastest_calls(self):
        case = Case("a/b", None, peers=("torch",), work=4.0, ceiling="read")
        replies = {"mica": {"repetitions": 9, "fastest": 0.5}, "torch": {"repetitions": 9, "fastest": 2.0},
                   "ceiling": {"work": 1.0, "fastest": 0.1}}
        found = results.record(case, {"mica": [1.0], "torch": [3.0], "ceiling": [1.0]}, replies, {}, {})
        self.assertEqual(found["ratios"]["torch"], {"min": 3.0, "median": 3.0, "max": 3.0, "least": 4.0})
        self.assertEqual(found["participants"]["mica"]["fastest"], 0.5)
        self.assertEqual(found["share"], 0.8)

    def test_the_share_is_best_of_best(self):
        found = measured(mica=[4.0, 1.0, 2.0], ceiling=[3.0, 2.0, 1.0])
        self.assertEqual(found["rate"], 8.0)
        self.assertEqual(found["ceiling_rate"], 16.0)
        self.assertEqual(found["share"], 0.5)
        self.assertEqual(found["shares"], {"min": 0.25, "median": 0.375, "max": 1.0})

    def test_a_goal_against_nobody_is_not_met(self):
        found = measured(mica=[1.0])
        self.assertEqual(found["goals"]["best"], {"target": 2.0, "value": None, "met": False})

    def test_goals_in_seconds_are_bounds_from_above(self):
        case = Case("a/b", None, goals={"seconds": 2.0})
        for seconds, met in ((1.0, True), (3.0, False)):
            found = results.record(case, {"mica": [seconds]}, {"mica": {"repetitions": 1}}, {}, {})
            self.assertEqual(found["goals"]["seconds"], {"target": 2.0, "value": seconds, "met": met})

    def test_spread(self):
        self.assertEqual(results.spread([3.0, 1.0, 2.0, 5.0, 4.0]), {"min": 1.0, "median": 3.0, "q1": 2.0, "q3": 4.0})
        self.assertEqual(results.spread([3.0])["q3"], 3.0)

    def test_a_part_merges_and_old_runs_go(self):
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "m.json")
            first, second = {"run": "1"}, {"run": "2"}
            results.merge(path, first, {"a": measured(mica=[1.0]), "b": measured(mica=[2.0])})
            both = results.merge(path, second, {"b": measured(mica=[3.0])})
            self.assertEqual(both["cases"]["a"]["run"], "1")
            self.assertEqual(both["cases"]["b"]["participants"]["mica"]["median"], 3.0)
            self.assertEqual(sorted(both["runs"]), ["1", "2"])
            last = results.merge(path, second, {"a": measured(mica=[4.0])})
            self.assertEqual(sorted(last["runs"]), ["2"])
            self.assertEqual([entry.name for entry in Path(folder).iterdir()], ["m.json"])

    def test_records_of_another_format_are_dropped(self):
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "m.json")
            path.write_text(json.dumps({"cases": {"old": {"run": "1"}}, "runs": {"1": {}}}))
            everything = results.merge(path, {"run": "2"}, {"new": measured(mica=[1.0])})
            self.assertEqual(list(everything["cases"]), ["new"])
            self.assertEqual(results.load(path), everything)

    def test_names_of_machines(self):
        text = "model name\t: Intel(R) Xeon(R) Platinum 8592+ CPU @ 2.10GHz\nflags\t: fpu avx2 avx512f\n"
        self.assertEqual(results.machine_name(text, 2), "intel-xeon-platinum-8592-avx512-2")
        self.assertEqual(results.machine_name(text, 2, "avx2"), "intel-xeon-platinum-8592-as-avx2-2")

    def test_the_page(self):
        found = measured(mica=[0.001], torch=[0.003], ceiling=[0.001])
        found["absent"] = {"jax": "not installed: no wheel"}
        about = {"run": "today", "commit": "c", "threads": 2, "rounds": 1, "isa": "native", "wait": "default", "malloc": "reuse", "cpu": "x", "system": "y", "peers": {},
                 "ceilings": []}
        page = report.page("machine", {"cases": {"a/b": {**found, "run": "today"}}, "runs": {"today": about}})
        self.assertIn("| a/b | 1 ms (1 ms; 0 %) | **3.00** (3.00) | absent | 0.50 of read", page)
        self.assertIn("✓ best ≥ 2 (3.00)", page)
        self.assertIn("jax absent from a/b: not installed: no wheel", page)


CEILINGS = [{"params": {"ceiling": what, "threads": 1}, "rate": 24.0} for what in ("read", "f32")]


class Driver(unittest.TestCase):
    def setUp(self):
        scratch = tempfile.TemporaryDirectory()
        self.addCleanup(scratch.cleanup)
        self.folder = Path(scratch.name)
        environment = mock.patch.dict(os.environ, {"MICA_BENCH_VENV": str(self.folder)})
        environment.start()
        self.addCleanup(environment.stop)
        self.options = argparse.Namespace(rounds=3, isa="native", wait="default", malloc="reuse", seconds=None, threads=1, logs=self.folder, scratch=self.folder, build=self.folder)

    def case(self, bodies, **more):
        commands = {}
        for who, body in bodies.items():
            path = self.folder / f"{who}.py"
            path.write_text(WORKER.format(bench=str(BENCH), body="\n    ".join(body.split("\n"))))
            commands[who] = [sys.executable, str(path)]
        return Case("a/b", None, {"n": 3}, peers=tuple(who for who in bodies if who not in ("mica", "ceilings")),
                    tolerance=None, commands=commands, seconds=1e-6, **more)

    def measure(self, case):
        with client.Workers(self.options) as workers:
            return driver.Run(workers, self.options, CEILINGS).measure(case)

    def test_everyone_takes_every_round(self):
        found = self.measure(self.case({
            "mica": "return Prepared(run=lambda: 1.0, timed=True, work=request['params']['n'], info={'x': 1})",
            "peer": "return Prepared(run=lambda: 2.5, timed=True)",
            "ceilings": "return Prepared(run=lambda: 1.0, timed=True, work=6.0)"}, ceiling="read"))
        self.assertEqual(found["participants"]["mica"]["rounds"], [1.0] * 3)
        self.assertEqual(found["participants"]["mica"]["info"], {"x": 1})
        self.assertEqual(found["ratios"]["peer"]["median"], 2.5)
        self.assertEqual(found["share"], 0.5)

    def test_who_is_hopeless_takes_one_round(self):
        run = "return Prepared(run=lambda: {}, timed=True)"
        found = self.measure(self.case({"mica": run.format(0.1), "slow": run.format(1.1), "slower": run.format(0.9)}))
        self.assertEqual({who: len(one["rounds"]) for who, one in found["participants"].items()},
                         {"mica": 3, "slow": 1, "slower": 3})
        self.assertAlmostEqual(found["ratios"]["slow"]["median"], 11.0)

    def test_arithmetic_counts_as_the_run_saw_it_best(self):
        bodies = {"mica": "return Prepared(run=lambda: 1.0, timed=True, work=3.0)",
                  "ceilings": "return Prepared(run=lambda: 1.0, timed=True, work=6.0)"}
        self.assertEqual(self.measure(self.case(bodies, ceiling="f32"))["share"], 0.125)
        self.assertEqual(self.measure(self.case(bodies, ceiling="read"))["share"], 0.5)

    def test_who_fails_or_declines_is_absent_and_the_rest_goes_on(self):
        found = self.measure(self.case({
            "mica": "return Prepared(run=lambda: 1.0, timed=True)",
            "breaks": "raise ValueError('broken')",
            "declines": "raise Absent('has no such thing')",
            "dies": "import os; os._exit(3)",
            "fails later": "calls = []\ndef run():\n    calls.append(1)\n    if len(calls) > 3: raise OSError('late')\n"
                           "    return 1.0\nreturn Prepared(run=run, timed=True)",
            "good": "print('noise')\nreturn Prepared(run=lambda: 1.0, timed=True)"}))
        self.assertEqual(list(found["ratios"]), ["good"])
        self.assertIn("broken", found["absent"]["breaks"])
        self.assertEqual(found["absent"]["declines"], "has no such thing")
        self.assertIn("ended with 3", found["absent"]["dies"])
        self.assertIn("late", found["absent"]["fails later"])

    def test_who_does_not_answer_in_time_is_absent_and_starts_anew(self):
        late = "import os, time\nif not os.path.exists({0!r}): open({0!r}, 'w').close(); time.sleep(60)\n" \
               "return Prepared(run=lambda: 2.0, timed=True)"
        case = self.case({"mica": "return Prepared(run=lambda: 1.0, timed=True)",
                          "late": late.format(str(self.folder / "asked"))})
        with client.Workers(self.options) as workers, mock.patch.object(driver, "PREPARE_SECONDS", 3):
            run = driver.Run(workers, self.options, CEILINGS)
            self.assertIn("no answer within 3 s", run.measure(case)["absent"]["late"])
            self.assertEqual(run.measure(case)["ratios"]["late"]["median"], 2.0)

    def test_a_program_that_is_not_there_is_absent(self):
        case = self.case({"mica": "return Prepared(run=lambda: 1.0, timed=True)", "peer": ""})
        case.commands["peer"][:] = [str(self.folder / "nothing")]
        self.assertIn("cannot start", self.measure(case)["absent"]["peer"])

    def test_no_ratio_without_the_subject(self):
        found = self.measure(self.case({"mica": "raise ValueError('no')",
                                        "peer": "return Prepared(run=lambda: 1.0, timed=True)"}))
        self.assertEqual(found["participants"], {})
        self.assertIn("not measured: ValueError: no", report.row("a/b", found, ["peer"]))


class Protocol(unittest.TestCase):
    def test_repetitions_fill_a_round(self):
        fixed = protocol.Prepared(run=lambda: 0.25, timed=True)
        self.assertEqual(protocol.repetitions_for(fixed, 1.0), (4, 0.25))
        self.assertEqual(protocol.repetitions_for(fixed, 0.1), (1, 0.25))
        self.assertEqual(protocol.round_of(fixed, 3), (0.25, 0.25))

    def test_a_round_runs_inside_its_context(self):
        events = []

        @contextlib.contextmanager
        def around():
            events.append("in")
            yield
            events.append("out")

        prepared = protocol.Prepared(run=lambda: events.append("run"), around=around)
        protocol.round_of(prepared, 2)
        self.assertEqual(events, ["in", "run", "run", "out"])

    def test_requests(self):
        state, closed = {}, []
        prepared = protocol.Prepared(run=lambda: 2.0, timed=True, close=lambda: closed.append(1), work=5)
        reply = protocol.answer({"prepare": {"seconds": 8}}, state, lambda _: prepared)
        self.assertEqual(reply, {"repetitions": 4, "seconds": 2.0, "info": {}, "work": 5})
        self.assertEqual(protocol.answer({"round": True}, state, None), {"seconds": 2.0, "fastest": 2.0})
        self.assertEqual(protocol.answer({"release": True}, state, None), {})
        self.assertEqual(closed, [1])
        with self.assertRaises(ValueError):
            protocol.answer({"rond": True}, state, None)


class Ceilings(unittest.TestCase):
    def test_the_best_way_with_all_threads(self):
        measured = [{"params": {"ceiling": what, "threads": threads, "pages": pages}, "rate": rate}
                    for what, threads, pages, rate in [("read", 1, "huge", 9.0), ("read", 2, "huge", 7.0),
                                                       ("read", 2, "ordinary", 8.0), ("f32", 2, None, 1.0),
                                                       ("f16", 2, None, None)]]
        ways = ceilings.best_ways(measured, 2)
        self.assertEqual(ways["read"]["pages"], "ordinary")
        self.assertEqual(ways["f16"], ways["f32"])


class Micro(unittest.TestCase):
    def test_figures_are_seconds(self):
        output = json.dumps({"benchmarks": [{"name": "x", "real_time": 2.0, "time_unit": "us", "ns/node": 1.5e-7}]})
        self.assertEqual(micro.seconds_in(output, "real_time"), 2e-6)
        self.assertEqual(micro.seconds_in(output, "ns/node"), 1.5e-7)
        with self.assertRaises(ValueError):
            micro.seconds_in(output, "ns/nod")


class Cases(unittest.TestCase):
    def test_every_declaration_is_sound_without_any_peer(self):
        cases = all_cases()
        self.assertGreater(len(cases), 0)
        for case in cases:
            json.dumps(case.request())
            self.assertTrue(case.work is None or (math.isfinite(case.work) and case.work > 0), case.name)

    def test_mistakes_in_declarations(self):
        for wrong in (dict(ceiling="speed"), dict(goals={"torch": 1.0}), dict(goals={"ceiling": 0.5})):
            with self.assertRaises(ValueError):
                check(Case("a/b", None, **wrong))

    def test_patterns(self):
        cases = [Case(name, None) for name in ("matmul/float32/64", "matmul/float32/640", "sum/axis0")]
        names = [case.name for case in matching(cases, ["*/64", "sum"])]
        self.assertEqual(names, ["matmul/float32/64", "sum/axis0"])
        self.assertEqual(len(matching(cases, [])), 3)


if __name__ == "__main__":
    unittest.main()
