#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""quern bench compare on results made here, of which it is known what their comparison says."""
import copy
import json
import os
import random
import unittest

from test_cli import Case

RESULT = {
    "format": "quern-bench-serve/1", "date_utc": "2026-11-26T10:00:00Z", "is_partial": False,
    "is_valid": True, "invalid": [], "warnings": [], "headline": 0,
    "command": "quern bench serve --workload wafer",
    "client": {"cpu": "AMD EPYC", "cores": 2, "memory_bytes": 8 << 30, "kernel": "6.1", "gpus": []},
    "server": {"base_url": "http://127.0.0.1:1", "engine": "quern", "version": "0.1.0",
               "model": "nano", "quantization": "none", "weights": "trained", "device": "cpu",
               "draft_tokens": 5, "acceptance": "measured", "same_machine": True},
    "workload": {"name": "wafer", "scale": 0.05, "seed": 1, "api": "chat", "tokenizer": "t",
                 "text": "words", "file": None, "prefix_tokens": 600, "input_tokens": 400,
                 "output_tokens": 50, "range_ratio": 0, "range_ratio_meaning": "around",
                 "groups": 1, "turns": 1, "ignore_eos": True, "hit_rate": 0.6, "sampling": {}},
    "load": {"mode": "open", "arrivals": "poisson", "burstiness": 1.0, "warmups": 1, "repeats": 1,
             "kind": "single"},
    "runs": [],
}
N = 200


def make_run(throughput, label="2.4 requests/s", rate=2.4, repeat=0, **more):
    return {"label": label, "request_rate": rate, "max_concurrency": None, "repeat": repeat,
            "is_confirmation": False, "is_valid": True, "num_prompts": N, "completed": N,
            "failed": 0, "errors": {}, "total_input_tokens": 1000 * N, "total_output_tokens": 50 * N,
            "output_throughput": throughput, "total_token_throughput": 21 * throughput,
            "request_throughput": throughput / 50, "hit_rate": 0.59, "p95_ttft_ms": 90.0,
            "metrics": {"acceptance_length": 2.5},
            "energy": {"power_valid": True, "joules_per_output_token": 0.5},
            "cost": {"profiles": [{"name": "rental", "usd_per_m_output": 1.78}]}, **more}


def make_requests(run, seed, factor=1.0, noise=0.1, n=N, **more):
    """Latencies by id; the same seed gives the same, `factor` times as long."""
    draw, own = random.Random(seed), random.Random(seed + factor)
    lines = []
    for i in range(n):
        ttft = draw.uniform(50, 150) * factor * (1 + noise * own.uniform(-1, 1))
        lines.append({"run": run, "id": i, "ttft_ms": ttft, "tpot_ms": 10.0 * factor,
                      "e2el_ms": ttft + 490 * factor, "prompt_tokens": 1000, "output_tokens": 50,
                      "end": "done", **more})
    return lines


class Compare(Case):
    def result(self, name, runs, requests, **changes):
        """A folder with both files; `changes` are of "object__key", or of the result itself."""
        result = copy.deepcopy(RESULT)
        result["runs"] = runs
        for key, value in changes.items():
            *objects, last = key.split("__")
            at = result
            for part in objects:
                at = at[part]
            at[last] = value
        os.makedirs(self.path(name), exist_ok=True)
        self.write(name + "/result.json", json.dumps(result))
        if requests is not None:
            self.write(name + "/requests.jsonl", "".join(json.dumps(r) + "\n" for r in requests))
        return self.path(name)

    def pair(self, factor=0.8, **changes):
        return (self.result("a", [make_run(1000.0)], make_requests(0, 1)),
                self.result("b", [make_run(1250.0)], make_requests(0, 1, factor), **changes))

    def read_file(self, name):
        with open(self.path(name), encoding="utf-8") as file:
            return file.read()

    def compare(self, *arguments):
        return json.loads(self.succeed("bench", "compare", "--json", *arguments).out)

    def test_ratios_of_pairs_and_their_intervals(self):
        comparison = self.compare(*self.pair())
        self.assertEqual(comparison["format"], "quern-bench-compare/1")
        self.assertTrue(comparison["is_comparable"])
        self.assertEqual((comparison["differences"], comparison["warnings"]), ([], []))
        (run,) = comparison["runs"]
        self.assertEqual((run["n_paired"], run["n_same_input"], run["n_same_output"]), (N, N, N))
        self.assertEqual(run["resampled"], ["requests"])
        ttft, tpot = run["latency"]["ttft_ms"], run["latency"]["tpot_ms"]
        self.assertLess(ttft["ratio"]["low"], 0.8)
        self.assertGreater(ttft["ratio"]["high"], 0.8)
        # Pairs take away what requests differ by: 100 +- 29 ms, against 10 % of noise.
        self.assertLess(ttft["ratio"]["high"] - ttft["ratio"]["low"], 0.05)
        self.assertAlmostEqual(tpot["ratio"]["value"], 0.8)
        self.assertAlmostEqual(tpot["difference"]["value"], -2.0)
        self.assertEqual(tpot["ratio"]["low"], tpot["ratio"]["high"])
        self.assertEqual(run["throughput"]["output_throughput"]["ratio"],
                         {"value": 1.25, "low": None, "high": None})
        self.assertEqual(run["figures"]["usd_per_m_output"],
                         {"a": 1.78, "b": 1.78, "ratio": 1.0, "profile": "rental"})
        self.assertEqual(run["figures"]["acceptance_length"]["a"], 2.5)
        self.assertEqual(comparison, {**self.compare(*self.pair()),
                                      "date_utc": comparison["date_utc"]})

    def test_what_did_not_succeed_in_both_is_not_paired(self):
        requests = make_requests(0, 1)
        for i in (3, 5):
            requests[i]["end"] = "timeout"
        requests[7]["ttft_ms"] = None
        del requests[11]
        requests[20]["output_tokens"] = 49
        random.Random(1).shuffle(requests)  # lines stand in the order in which requests ended
        a = self.result("a", [make_run(1000.0, completed=N - 3, failed=3,
                                       errors={"timeout": 2, "connect": 1})], requests)
        others = make_requests(0, 1)
        others[30]["end"] = "cut_off"
        b = self.result("b", [make_run(1000.0)], others)
        (run,) = self.compare(a, b)["runs"]
        self.assertEqual((run["n_paired"], run["n_same_output"]), (N - 4, N - 5))
        self.assertEqual(run["latency"]["ttft_ms"]["n"], N - 5)
        self.assertEqual(run["a"]["errors"], {"timeout": 2, "connect": 1})
        self.assertAlmostEqual(run["a"]["success_rate"], (N - 3) / N)
        table = self.succeed("bench", "compare", a, b).out
        self.assertIn("errors of A: timeout 2", table)

    def test_repeats_are_paired_by_number(self):
        a = self.result("a", [make_run(1.0, repeat=i) for i in range(3)],
                        [r for i in range(3) for r in make_requests(i, i, n=20 + i)])
        b = self.result("b", [make_run(1.0, repeat=i) for i in (2, 0)],
                        make_requests(0, 2, 2.0, n=22) + make_requests(1, 0, 2.0, n=20))
        (run,) = self.compare(a, b)["runs"]
        self.assertEqual((run["n_paired"], run["n_paired_runs"]), (42, 2))

    def test_cost_is_the_median_of_the_repeats(self):
        def runs(*costs):
            return [make_run(1.0, repeat=i, cost={"profiles": [{"name": "p", "usd_per_m_output": x}]})
                    for i, x in enumerate(costs)]
        a = self.result("a", runs(10.25, 8.0, 9.0), [])
        b = self.result("b", runs(4.5, 1.0, 5.0), [])
        self.assertEqual(self.compare(a, b)["runs"][0]["figures"]["usd_per_m_output"],
                         {"a": 9.0, "b": 4.5, "ratio": 0.5, "profile": "p"})

    def test_prompts_that_were_seen_before_are_told(self):
        a = self.result("a", [make_run(1.0, hit_rate_expected=0.6)], [])
        b = self.result("b", [make_run(1.0, hit_rate_expected=0.6)], [])
        self.assertNotIn("cache", str(self.compare(a, b)["warnings"]))
        seen = make_run(1.0, hit_rate_expected=0.6)
        seen["hit_rate"] = 0.992
        b = self.result("b", [seen], [])
        warnings = str(self.compare(a, b)["warnings"])
        self.assertIn("B found 99.2 % of its input in the cache, the workload makes 60.0 %", warnings)
        self.assertIn("A found 59.0 % of its input in the cache and B 99.2 %", warnings)

    def test_prompts_are_the_same_where_both_salts_are_given(self):
        for salts, is_same in (((1, 1), True), ((1, 2), False), ((None, None), False)):
            sides = [self.result(name, [make_run(1.0)], [], workload__salt=salt)
                     for name, salt in zip("ab", salts)]
            comparison = self.compare(*sides, "--output", self.path("out"))
            self.assertEqual(comparison["has_same_prompts"], is_same)
            self.assertEqual("the same prompt" in self.read_file("out/report.md"), is_same)

    def test_the_page_says_which_confidence_and_what_was_typed(self):
        a, b = self.pair()
        self.compare(a, b, "--confidence", "0.8", "--seed", "7", "--output", self.path("out"))
        self.assertIn("--confidence 0.8 --seed 7 --output", self.read_file("out/report.md"))
        self.assertEqual(self.read_file("out/report.html").count("with 95 % intervals"), 0)
        self.assertGreater(self.read_file("out/report.html").count("with 80 % intervals"), 0)

    def knee(self, name, rates, **changes):
        """A search: two trials that were cut, then confirmations, the last of which did not hold."""
        found = [make_run(100 * rate, "%g requests/s" % rate, rate, repeat=i, is_confirmation=True)
                 for i, rate in enumerate(rates)]
        trials = [make_run(1.0, "120 requests/s", 120.0, is_valid=False, invalid=["cut"])] * 2
        failed = make_run(1.0, "130 requests/s", 130.0, is_valid=False, is_confirmation=True)
        limit = {"metric": "p95_ttft_ms", "limit_ms": 500.0, "success_min": 0.999,
                 "rate": rates[0], "is_found": True, **changes}
        return self.result(name, [*trials, *found, failed], make_requests(2, 1) + make_requests(3, 2),
                           knee=limit, load__kind="knee", headline=2)

    def test_two_knees_are_compared_by_their_confirmations(self):
        a, b = self.knee("a", [100.0, 100.0]), self.knee("b", [125.0, 125.0])
        comparison = self.compare(a, b)
        self.assertTrue(comparison["is_comparable"])
        self.assertEqual(comparison["knee"], {"metric": "p95_ttft_ms", "limit_ms": 500.0,
                                              "a": 100.0, "b": 125.0, "ratio": 1.25})
        (run,) = comparison["runs"]
        self.assertEqual(run["label"], "100 requests/s (confirmation) (A), "
                                       "125 requests/s (confirmation) (B)")
        self.assertEqual((run["a"]["n_repeats"], run["n_paired"]), (2, 2 * N))
        self.assertIn("knee", self.succeed("bench", "compare", a, b).out)
        c = self.knee("c", [100.0, 100.0])
        (run,) = self.compare(a, c)["runs"]
        self.assertEqual(run["label"], "100 requests/s (confirmation)")
        d = self.knee("d", [100.0], limit_ms=400.0)
        self.fail_with(2, ["bench", "compare", a, d], "knee.limit_ms", "--allow load")
        e = self.knee("e", [100.0], is_found=False)
        self.assertIsNone(self.compare(a, e)["knee"])

    def test_repeats_are_paired_in_order_and_drawn_again(self):
        """Runs differ by more than their requests do: then the interval has to be that wide."""
        speeds = [1.0, 1.3, 0.9, 1.2, 1.05]
        sides = []
        for name, factors in (("a", [1.0] * 5), ("b", speeds)):
            runs = [make_run(1000.0 / f, repeat=i) for i, f in enumerate(factors)]
            requests = [r for i, f in enumerate(factors)
                        for r in make_requests(i, 10 + i, f, noise=0)]
            sides.append(self.result(name, runs, requests))
        (run,) = self.compare(*sides)["runs"]
        self.assertEqual((run["n_paired"], run["n_paired_runs"]), (5 * N, 5))
        self.assertEqual(run["resampled"], ["runs", "requests"])
        ratio = run["latency"]["tpot_ms"]["ratio"]
        self.assertAlmostEqual(ratio["value"], 1.05)
        self.assertLess(ratio["low"], 0.99)
        self.assertGreater(ratio["high"], 1.15)
        throughput = run["throughput"]["output_throughput"]
        self.assertAlmostEqual(throughput["b"]["value"], 1000 / 1.05, 4)
        self.assertAlmostEqual(throughput["ratio"]["low"], 1 / 1.3, 6)
        self.assertAlmostEqual(throughput["ratio"]["high"], 1 / 0.9, 6)

    def test_loads_are_matched_and_the_others_named(self):
        rates = {"a": [1.0, 2.0, 3.0], "b": [3.0, 2.0, 4.0]}
        sides = [self.result(name, [make_run(100 * rate, "%g requests/s" % rate, rate)
                                    for rate in of], make_requests(0, 1) + make_requests(1, 2))
                 for name, of in rates.items()]
        comparison = self.compare(*sides)
        self.assertEqual([run["label"] for run in comparison["runs"]],
                         ["2 requests/s", "3 requests/s"])
        self.assertEqual(comparison["unmatched"], {"a": ["1 requests/s"], "b": ["4 requests/s"]})
        self.assertEqual([run["n_paired"] for run in comparison["runs"]], [N, 0])
        self.assertIsNone(comparison["runs"][1]["latency"]["ttft_ms"])

    def test_what_differs_is_refused_by_name_unless_told(self):
        for kind, field, value in (
                ("machine", "client__cpu", "Another"), ("machine", "client__cores", 4),
                ("machine", "client__memory_bytes", 16 << 30), ("machine", "server__device", "cuda"),
                ("machine", "server__same_machine", False), ("workload", "workload__name", "random"),
                ("workload", "workload__scale", 1), ("workload", "workload__seed", 2),
                ("workload", "workload__range_ratio", 0.5),
                ("workload", "workload__range_ratio_meaning", "below"),
                ("workload", "workload__hit_rate", 0.3), ("workload", "workload__output_tokens", 51),
                ("workload", "workload__sampling", {"temperature": 0}),
                ("load", "load__arrivals", "constant"), ("load", "load__warmups", None),
                ("api", "workload__api", "completions"), ("invalid", "is_valid", False),
                ("partial", "is_partial", True)):
            sides = self.pair(**{field: value})
            name = field.replace("__", ".")
            self.fail_with(2, ["bench", "compare", *sides], name, "--allow " + kind)
            other = "api" if kind != "api" else "load"
            self.fail_with(2, ["bench", "compare", *sides, "--allow", other], name)
            for told in (["--allow", kind], ["--allow", "load,api," + kind], ["--force"]):
                comparison = self.compare(*sides, *told)
                self.assertFalse(comparison["is_comparable"])
                (difference,) = comparison["differences"]
                self.assertEqual((difference["kind"], difference["field"], difference["b"]),
                                 (kind, name, value))
            table = self.succeed("bench", "compare", *sides, "--force").out
            self.assertIn("NOT COMPARABLE", table)
            self.assertIn(name, table)
        sides = self.pair(client__cpu="x", workload__seed=2, workload__api="completions",
                          is_partial=True, load__mode="closed")
        self.fail_with(2, ["bench", "compare", *sides], "; 2 more", "machine,workload,load,api,partial")

    def test_runs_that_are_not_valid_and_loads_without_a_counterpart(self):
        a = self.result("a", [make_run(1000.0)], make_requests(0, 1))
        b = self.result("b", [make_run(1000.0, is_valid=False)], make_requests(0, 1))
        self.fail_with(2, ["bench", "compare", a, b], "2.4 requests/s", "--allow invalid")
        c = self.result("c", [make_run(900.0, "2 requests/s", 2.0)], make_requests(0, 1))
        self.fail_with(2, ["bench", "compare", a, c], "2 requests/s", "--allow load")
        (run,) = self.compare(a, c, "--allow", "load")["runs"]
        self.assertEqual(run["label"], "2.4 requests/s (A), 2 requests/s (B)")
        self.assertEqual(run["n_paired"], N)

    def test_servers_may_differ_and_it_says_so(self):
        a, b = self.pair(server__engine="llama.cpp", server__quantization="mxfp4",
                         server__acceptance="synthetic", server__device=None,
                         client__memory_bytes=(8 << 30) - (1 << 20), client__kernel="6.2",
                         workload__scale=0.050, workload__tokenizer="server: /tokenize")
        comparison = self.compare(a, b)
        self.assertTrue(comparison["is_comparable"])
        warnings = "\n".join(comparison["warnings"])
        for word in ("quantization", "synthetic", "tokenizers"):
            self.assertIn(word, warnings)

    def test_notes_tell_what_a_server_does_not(self):
        noted = {"quantization": "none", "weights": "trained"}
        a, b = self.pair(server__quantization=None, server__weights="unknown",
                         server__notes=noted, server__version="llama-cpp-python 0.3")
        comparison = self.compare(a, b)
        self.assertEqual(comparison["warnings"], [])
        self.assertEqual((comparison["a"]["label"], comparison["b"]["label"]),
                         ("quern 0.1.0", "llama-cpp-python 0.3"))

    def test_few_pairs_have_no_interval(self):
        for n, has_interval in ((7, False), (8, True)):
            a = self.result("a", [make_run(1.0)], make_requests(0, 1, n=n))
            b = self.result("b", [make_run(1.0)], make_requests(0, 1, 2.0, n=n))
            ratio = self.compare(a, b)["runs"][0]["latency"]["tpot_ms"]["ratio"]
            self.assertAlmostEqual(ratio["value"], 2.0)
            self.assertEqual(ratio["low"] is not None, has_interval)

    def test_results_without_requests_are_compared_unpaired(self):
        a, b = self.pair()
        os.remove(os.path.join(b, "requests.jsonl"))
        comparison = self.compare(os.path.join(a, "result.json"), b)
        self.assertIn("requests.jsonl", comparison["warnings"][0])
        self.assertEqual((comparison["a"]["has_requests"], comparison["b"]["has_requests"]),
                         (True, False))
        (run,) = comparison["runs"]
        self.assertEqual(run["n_paired"], 0)
        self.assertEqual(run["throughput"]["output_throughput"]["ratio"]["value"], 1.25)
        self.assertIn("0 requests paired", self.succeed("bench", "compare", a, b).out)

    def test_energy_that_is_not_valid_and_strange_results_give_nothing(self):
        a = self.result("a", [make_run(0.0, energy={"power_valid": False,
                                                    "joules_per_output_token": 1}, cost=None)], [])
        b = self.result("b", [make_run(1.0, metrics=None, errors=7, hit_rate="x")], [])
        (run,) = self.compare(a, b)["runs"]
        self.assertEqual(run["figures"]["joules_per_output_token"],
                         {"a": None, "b": 0.5, "ratio": None})
        self.assertNotIn("usd_per_m_output", run["figures"])
        self.assertIsNone(run["throughput"]["output_throughput"]["ratio"]["value"])
        self.assertEqual(run["b"]["errors"], {})

    def test_files_that_are_not_results(self):
        a, b = self.pair()
        self.fail_with(2, ["bench", "compare", a], "1 results, expected two")
        self.fail_with(2, ["bench", "compare", a, b, "--allow", "machines"], "--allow", "machines")
        self.fail_with(3, ["bench", "compare", a, self.path("none")], "none")
        for text, needle in (("[]", "format"), ("{", "line"), ('{"format": "x"}', '"x"'),
                             ('{"format": "quern-bench-serve/1"}', "runs"),
                             ('{"format": "quern-bench-serve/1", "runs": {}}', "runs")):
            os.makedirs(self.path("bad"), exist_ok=True)
            self.write("bad/result.json", text)
            self.fail_with(3, ["bench", "compare", a, self.path("bad")], "bad/result.json", needle)
        for line, needle in (("{", "line 2"), ('{"id": 1}', "run"), ('{"run": 0, "id": -1}', "id"),
                             ("[]", "run")):
            self.write("b/requests.jsonl", '{"run": 0, "id": 0}\n' + line + "\n")
            self.fail_with(3, ["bench", "compare", a, b], "requests.jsonl: line 2", needle)


if __name__ == "__main__":
    unittest.main()
