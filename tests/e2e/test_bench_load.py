#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""How `quern bench serve` drives a server and what it makes of what happens meanwhile: arrivals,
limits, stalls, ramps, knees, traces, interruptions, metrics, power and prices.  The server is
tests/mock, whose log is the truth.
"""
import datetime
import json
import os
import signal
import tempfile
import time
import unittest

import numpy as np

from mocking import Bench, Mock
from serving import wait_until
from test_bench_serve import RANDOM, OneMock, latencies, sizes

N_STREAMS = int(os.environ.get("QUERN_BENCH_STREAMS", "200"))
LAG_MAX_MS = 5


def in_flight(entries):
    """The most requests that were there at once."""
    moments = sorted([(e["arrived_s"], 1) for e in entries] + [(e["ended_s"], -1) for e in entries])
    return int(np.max(np.cumsum([step for _, step in moments])))


def rank_of(values, cumulative):
    """Kolmogorov's distance of values from a distribution, times the root of their number."""
    values = np.sort(values)
    expected = cumulative(values)
    steps = np.arange(len(values) + 1) / len(values)
    return np.sqrt(len(values)) * max(np.max(steps[1:] - expected), np.max(expected - steps[:-1]))


class Arrivals(OneMock):
    def arrive(self, *flags, rate=100, n=300):
        """Times between arrivals as the server saw them, in mean gaps."""
        self.mock.set()
        bench = Bench(self.mock.url, *RANDOM, *sizes(5, 1, n), "--request-rate", rate, *flags)
        entries = self.served(bench)
        due = np.array([r["due_s"] for r in bench.records])
        sent = np.array([r["sent_s"] for r in bench.records])
        self.assertEqual(len(entries), n)
        self.assertTrue(np.all(sent >= due - 1e-4))
        self.near(due.max() - due.min(), (n - 1) / rate, 1e-3)
        self.near(bench.run["offered_rate"], rate)
        # what was sent when, and what came when: the same but for an offset between the clocks
        arrived = np.sort([e["arrived_s"] for e in entries])
        late = arrived - np.sort(sent)
        self.assertLess(np.median(late) - np.min(late), 0.02)
        return np.diff(np.sort(due)) * rate, np.diff(arrived) * rate

    def test_constant(self):
        due, arrived = self.arrive("--arrivals", "constant")
        self.assertLess(np.max(np.abs(due - 1)), 1e-3)
        self.near(np.mean(arrived), 1)

    def test_poisson(self):
        due, arrived = self.arrive()
        for gaps in (due, arrived):
            self.near(np.mean(gaps), 1)
            self.near(np.std(gaps), 1, 0.2)
        self.assertLess(rank_of(due, lambda x: 1 - np.exp(-x)), 1.9)  # one of 700 is above

    def test_gamma(self):
        for burstiness in (0.25, 4):
            due, arrived = self.arrive("--burstiness", burstiness)
            for gaps in (due, arrived):
                self.near(np.mean(gaps), 1)
                self.near(np.std(gaps), burstiness ** -0.5, 0.25)

    def test_a_seed_repeats_itself(self):
        same = [Bench(self.mock.url, *RANDOM, *sizes(5, 1, 30), "--request-rate", 300).records
                for _ in range(2)]
        other = Bench(self.mock.url, "--dataset-name", "random", "--seed", 8, *sizes(5, 1, 30),
                      "--request-rate", 300).records
        due = [[r["due_s"] for r in sorted(records, key=lambda r: r["id"])]
               for records in (*same, other)]
        self.assertEqual(due[0], due[1])
        self.assertNotEqual(due[0], due[2])


class Loops(OneMock):
    def test_closed_loop_keeps_its_limit(self):
        self.mock.set(ttft_ms=[10, 90], tpot_ms=[1, 9])
        bench = Bench(self.mock.url, *RANDOM, *sizes(10, 5, 60), "--max-concurrency", 7)
        self.assertEqual(in_flight(self.served(bench)), 7)
        self.assertEqual(bench.run["max_concurrency"], 7)
        self.assertIsNone(bench.run["request_rate"])
        self.assertEqual(bench.result["load"]["mode"], "closed")
        self.assertLessEqual(max(bench.run["timeline"]["in_flight"]), 7)

    def test_limit_of_an_open_loop_delays_and_counts_the_delay(self):
        self.mock.set(ttft_ms=200)  # 5 at once: 25 a second, and 50 come
        bench = Bench(self.mock.url, *RANDOM, *sizes(10, 1, 100), "--request-rate", 50,
                      "--arrivals", "constant", "--max-concurrency", 5)
        entries = self.served(bench)
        self.assertLessEqual(in_flight(entries), 5)
        offset = np.min([e["arrived_s"] - r["sent_s"] for e, r in zip(entries, bench.records)])
        for entry, record in zip(entries, bench.records):
            self.assertAlmostEqual(record["ttft_ms"] / 1e3, entry["chunk_s"][0] - offset -
                                   record["due_s"], delta=0.05)
        last = max(bench.records, key=lambda r: r["due_s"])
        self.near(last["ttft_ms"], 2000 + 200, 0.1)
        self.near(last["sent_s"] - last["due_s"], 2, 0.1)

    def test_a_stall_is_felt_by_all_who_were_due(self):
        self.mock.set(ttft_ms=20, stall={"at_s": 1, "for_s": 1})
        bench = Bench(self.mock.url, *RANDOM, *sizes(10, 1, 120), "--request-rate", 40,
                      "--arrivals", "constant")
        everything, entries = self.mock.requests(), self.served(bench)
        offset = np.min([e["arrived_s"] - r["sent_s"] for e, r in zip(
            sorted(entries, key=lambda e: e["arrived_s"]),
            sorted(bench.records, key=lambda r: r["sent_s"]))])
        end_s = everything[0]["arrived_s"] + 2 - offset
        stalled = [r for r in bench.records if end_s - 0.95 < r["due_s"] < end_s - 0.05]
        self.assertGreater(len(stalled), 30)
        for record in stalled:
            self.assertAlmostEqual(record["ttft_ms"] / 1e3, end_s - record["due_s"] + 0.02,
                                   delta=0.06)
        self.near(bench.run["max_ttft_ms"], 1020, 0.1)
        self.near(bench.run["mean_ttft_ms"], 20 + 1000 * 0.5 / 3, 0.15)  # 1 of 3 s was stalled
        # in its own eyes the server was quick
        self.assertLess(max(e["chunk_s"][0] - e["arrived_s"] for e in entries
                            if e["chunk_s"]), 1.1)

    def test_a_crowd_is_late_by_none_of_its_own(self):
        self.mock.set(ttft_ms=200)
        bench = Bench(self.mock.url, *RANDOM, *sizes(10, 2, 300))
        self.assertEqual(bench.result["load"]["arrivals"], "at_once")
        all_ms = 1e3 * max(record["sent_s"] for record in bench.records)
        self.assertLess(bench.run["lag"]["send_p99_ms"], all_ms / 2)  # it was nearly all of it

    def test_warmups_are_not_counted(self):
        self.mock.set(ttft_ms=5)
        n_before = len(self.mock.requests())
        bench = Bench(self.mock.url, *RANDOM, *sizes(10, 3, 10), "--num-warmups", 4,
                      "--max-concurrency", 2)
        n_sent = len(self.mock.requests()) - n_before
        self.assertGreaterEqual(n_sent, 14)
        self.assertEqual(len(bench.records), 10)
        self.assertEqual(bench.run["num_prompts"], 10)
        self.assertEqual(bench.run["total_output_tokens"], 30)
        entries = self.mock.requests()
        self.assertLessEqual(max(e["ended_s"] for e in entries[:-10]),
                             min(e["arrived_s"] for e in entries[-10:]))

    def test_trace_is_replayed_at_its_times(self):
        self.mock.set(cached_tokens="prefix")
        moments = [0, 40, 40, 300, 350, 900, 1500]
        with tempfile.NamedTemporaryFile("w", suffix=".jsonl") as file:
            for i, ms in enumerate(moments):
                file.write(json.dumps({"timestamp": 5000 + ms, "input_length": 1100 + i,
                                       "output_length": 3 + i, "hash_ids": [7, 8, 100 + i]}) + "\n")
            file.flush()
            bench = Bench(self.mock.url, "--dataset-name", "trace", "--dataset-path", file.name)
        records = sorted(bench.records, key=lambda r: r["id"])
        self.assertEqual(len(records), 7)
        for record, ms in zip(records, moments):
            self.assertAlmostEqual(record["due_s"], ms / 1e3, places=4)
            self.assertEqual(record["prompt_tokens"], 1100 + record["id"])
            self.assertEqual(record["output_tokens"], 3 + record["id"])
        entries = self.served(bench)
        arrived = np.array([e["arrived_s"] for e in entries]) - entries[0]["arrived_s"]
        self.assertLess(np.max(np.abs(arrived - np.array(moments) / 1e3)), 0.05)
        # two blocks of 512 tokens are all the same
        self.assertEqual([e["cached_tokens"] for e in entries[1:]], 6 * [1024])

    def test_requests_of_a_file_are_sent_as_they_are(self):
        self.mock.set(keep_bodies=True, output_tokens=4)
        lines = [{"prompt": "first of all"}, {"prompt": "the \u00e9cole second", "output_tokens": 3},
                 {"messages": [{"role": "user", "content": "third"}]}]
        with tempfile.NamedTemporaryFile("w", suffix=".jsonl") as file:
            file.write("".join(json.dumps(line) + "\n" for line in lines))
            file.flush()
            bench = Bench(self.mock.url, "--dataset-name", "custom", "--dataset-path", file.name,
                          "--backend", "openai-chat", "--max-concurrency", 1)
        bodies = [e["body"] for e in self.served(bench)]
        self.assertEqual([body["messages"][-1]["content"] for body in bodies],
                         ["first of all", "the \u00e9cole second", "third"])
        self.assertEqual(bodies[1]["max_tokens"], 3)
        self.assertEqual(bench.run["completed"], 3)
        talks = [{"conversations": [{"from": "human", "value": "how do you fare today"},
                                    {"from": "gpt", "value": "well I am fine"}]}] * 3
        with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
            json.dump(talks, file)
            file.flush()
            self.mock.set(keep_bodies=True)
            bench = Bench(self.mock.url, "--dataset-name", "sharegpt", "--dataset-path", file.name,
                          "--num-prompts", 3)
        for entry in self.served(bench):
            self.assertEqual((entry["body"]["prompt"], entry["max_tokens"]), ("how do you fare today", 4))

    def many_streams(self, n_output):
        """A run of them, compared with the server's log: the larger of its two lags."""
        self.mock.set(ttft_ms=[50, 1000], tpot_ms=50)
        bench = Bench(self.mock.url, *RANDOM, *sizes(10, n_output, N_STREAMS), "--max-concurrency",
                      N_STREAMS, "--num-warmups", 0)
        run, entries = bench.run, self.served(bench)
        self.assertEqual(run["completed"], N_STREAMS)
        self.assertEqual(in_flight(entries), N_STREAMS)
        self.assertEqual(run["total_output_tokens"], n_output * N_STREAMS)
        self.near(run["median_tpot_ms"], np.median(latencies(entries)["tpot"]))
        lag_ms = max(run["lag"]["send_p99_ms"], run["lag"]["read_p99_ms"])
        self.assertEqual(run["is_valid"], lag_ms <= LAG_MAX_MS, run["invalid"])
        return lag_ms

    def test_many_streams_without_lag(self):
        if N_STREAMS < 2000:  # beside other tests nobody keeps a promise about time
            self.many_streams(40)
            return
        lags_ms = []
        while len(lags_ms) < 5 and (not lags_ms or min(lags_ms) > LAG_MAX_MS):
            lags_ms.append(self.many_streams(200))
        self.assertLessEqual(min(lags_ms), LAG_MAX_MS, lags_ms)


class Plans(OneMock):
    SLOTS, SERVICE_MS = 8, 100  # 80 a second
    KNOWN = {"ttft_ms": 20, "tpot_ms": 5, "n_slots": SLOTS}  # 17 tokens: 100 ms

    def test_ramp_has_a_row_for_each_rate(self):
        self.mock.set(ttft_ms=20, tpot_ms=2)
        bench = Bench(self.mock.url, *RANDOM, *sizes(10, 10, 20), "--ramp", "20,40,80",
                      "--arrivals", "constant")
        runs = bench.result["runs"]
        self.assertEqual([run["request_rate"] for run in runs], [20, 40, 80])
        self.assertEqual({run["num_prompts"] for run in runs}, {20})
        for run in runs:
            self.near(run["duration"], 19 / run["request_rate"] + 0.038, 0.04)
            self.assertEqual(run["completed"], 20)
            self.assertIn("%g" % run["request_rate"], bench.out)
        self.assertEqual({r["run"] for r in bench.records}, {0, 1, 2})

    def test_repeats_are_runs_of_their_own(self):
        self.mock.set(ttft_ms=[20, 40], tpot_ms=2)
        bench = Bench(self.mock.url, *RANDOM, *sizes(10, 10, 20), "--max-concurrency", 10,
                      "--repeat", 3)
        runs = bench.result["runs"]
        self.assertEqual([run["repeat"] for run in runs], [0, 1, 2])
        self.assertEqual(len({run["label"] for run in runs}), 1)
        self.assertEqual(len(bench.records), 60)
        self.assertLess(bench.result["headline"], 3)

    def test_knee_is_found_where_it_is(self):
        self.mock.set(**self.KNOWN)
        bench = Bench(self.mock.url, *RANDOM, *sizes(10, 17, 150), "--knee", "ttft:150",
                      "--arrivals", "constant")
        knee = bench.result["knee"]
        self.assertTrue(knee["is_found"], knee)
        self.near(knee["rate"], 1e3 * self.SLOTS / self.SERVICE_MS, 0.03, "knee")
        self.assertGreaterEqual(knee["bracket"][1], knee["rate"])
        confirmed = [run for run in bench.result["runs"] if run["is_confirmation"]]
        self.assertGreaterEqual(len(confirmed), 2)
        self.near(knee["output_throughput"], 17 * knee["rate"], 0.05)
        for run in bench.result["runs"]:
            if run["is_confirmation"] and run["request_rate"] == knee["rate"]:
                self.assertLessEqual(run["p95_ttft_ms"], 150)

    def test_sensitivity_has_a_cell_for_each_assumption(self):
        for engine, flags in (("quern", ()), ("vllm", ()), ("vllm", ("--mtp-off-body",
                                                                    '{"no_mtp": true}'))):
            self.mock.set(engine=engine, cached_tokens="prefix", ttft_ms=5)
            bench = Bench(self.mock.url, *RANDOM, *sizes(320, 4, 8), "--max-concurrency", 4,
                          "--sensitivity", *flags)
            cells = bench.result["sensitivity"]
            self.assertEqual([(cell["hit_rate"], cell["mtp"]) for cell in cells],
                             [(rate, mtp) for mtp in ("on", "off") for rate in (0, 0.3, 0.6, 0.9)])
            for cell in cells:
                if engine == "vllm" and not flags and cell["mtp"] == "off":
                    self.assertIsNone(cell["run"])
                    self.assertIn("--mtp-off-body", cell["why"])
                    continue
                run = bench.result["runs"][cell["run"]]
                self.assertAlmostEqual(cell["hit_rate_measured"], cell["hit_rate"], places=6)
                self.assertAlmostEqual(run["hit_rate"], cell["hit_rate"], places=6)
            asked = [e["body"] for e in self.mock.requests()]
            n_off = sum(body.get("draft_tokens") == 0 or body.get("no_mtp", False) for body in asked)
            self.assertEqual(n_off >= 32, engine == "quern" or bool(flags))

    def test_mtp_off_is_measured_at_its_own_server(self):
        # Metrics of the cells without MTP were those of the server with it.
        self.mock.set(engine="sglang", draft_tokens=3, tokens_per_chunk=3, cached_tokens="prefix")
        with Mock(engine="sglang") as other:
            bench = Bench(self.mock.url, *RANDOM, *sizes(160, 16, 8), "--max-concurrency", 4,
                          "--sensitivity", "--mtp-off-url", other.url + "/v1/")
        self.assertEqual(bench.result["mtp_off_server"]["base_url"], other.url)
        for cell in bench.result["sensitivity"]:
            metrics = bench.result["runs"][cell["run"]]["metrics"]
            if cell["mtp"] == "on":
                self.near(metrics["acceptance_length"], 3, 0.05)
            else:
                self.assertIn(metrics["acceptance_length"], (None, 1))
            self.assertEqual(metrics["generated_tokens"], 8 * 16)

    def test_a_cell_that_cannot_be_made_says_why(self):
        self.mock.set(template_tokens=30, cached_tokens="prefix")
        bench = Bench(self.mock.url, *RANDOM, *sizes(200, 4, 8), "--max-concurrency", 4,
                      "--backend", "openai-chat", "--sensitivity", "--mtp-off-body", "{}")
        cells = bench.result["sensitivity"]
        self.assertEqual([cell["run"] is not None for cell in cells], 2 * [True, True, True, False])
        self.assertRegex(cells[3]["why"], "tokens")

    def test_a_warm_up_that_failed_is_not_infinitely_slow(self):
        self.mock.set(ttft_ms=20, n_slots=4, faults=[{"kind": "status", "status": 429,
                                                      "requests": [2]}])
        bench = Bench(self.mock.url, *RANDOM, *sizes(10, 8, 20), "--knee", "ttft:50",
                      "--request-rate", 100, "--num-warmups", 2, "--arrivals", "constant")
        self.assertNotIn("alone", bench.result["knee"]["why"] or "")
        self.assertGreater(len(bench.result["runs"]), 2)

    def test_an_overloaded_trial_is_told_by_those_who_wait(self):
        # Nobody has an answer yet, and 5 % of 2,000 wait for longer than 200 ms.
        self.mock.set(ttft_ms=60000)
        def interrupt(process):
            wait_until("a trial was cut", lambda: sum(
                e["end"] is not None for e in self.mock.requests(chunks=False)) > 20)
            process.send_signal(signal.SIGINT)
        bench = Bench(self.mock.url, *RANDOM, *sizes(10, 2, 2000), "--knee", "ttft:200",
                      "--request-rate", 200, "--num-warmups", 0, status=None, send=interrupt)
        self.assertTrue(bench.result["runs"][0]["cut"])
        self.assertLess(bench.result["runs"][0]["duration"], 5)

    def test_no_knee_where_the_limit_is_never_kept(self):
        self.mock.set(ttft_ms=60)
        bench = Bench(self.mock.url, *RANDOM, *sizes(10, 2, 20), "--knee", "ttft:30", status=None)
        self.assertFalse(bench.result["knee"]["is_found"])
        self.assertRegex(bench.result["knee"]["why"], r"alone took (59.9|6\d).* ms")


class Ends(OneMock):
    def ended(self):
        return sum(e["end"] is not None for e in self.mock.requests(chunks=False))

    def test_ctrl_c_writes_what_there_is(self):
        self.mock.set(ttft_ms=20, tpot_ms=2, faults=[{"kind": "hang", "every": 10,
                                                      "after_chunks": 2}])

        def interrupt(process):
            wait_until("some requests ended", lambda: self.ended() > 30)
            process.send_signal(signal.SIGINT)
        bench = Bench(self.mock.url, *RANDOM, *sizes(10, 5, 3000), "--request-rate", 100,
                      status=130, send=interrupt)
        self.assertTrue(bench.result["is_partial"])
        self.assertFalse(bench.result["is_valid"])
        run = bench.run
        self.assertGreater(run["completed"], 20)
        self.assertGreater(run["cancelled"], 0)
        self.assertEqual(run["success_rate"], 1)
        self.assertEqual(len(bench.records), run["completed"] + run["failed"] + run["cancelled"])
        self.assertIn(b"partial", bench.files["report.html"].lower())
        wait_until("nothing runs any more", lambda: self.mock.log()["running"] == 0)

    def test_ctrl_c_before_anything_was_sent(self):
        self.mock.set(ttft_ms=600000)

        def interrupt(process):
            wait_until("it came", lambda: self.mock.log()["running"] > 0)
            process.send_signal(signal.SIGINT)
        bench = Bench(self.mock.url, *RANDOM, *sizes(10, 5, 30), "--request-rate", 100,
                      status=130, send=interrupt)
        self.assertTrue(bench.result["is_partial"])
        self.assertEqual((bench.result["is_valid"], bench.result["runs"]), (False, []))
        self.assertEqual(bench.result["invalid"], ["interrupted"])

    def interrupted_behind_a_run(self, *flags, n=30):
        def interrupt(process):
            wait_until("a run ended", lambda: self.ended() > n)
            process.send_signal(signal.SIGTERM)
        bench = Bench(self.mock.url, *RANDOM, "--random-input-len", 10, "--random-output-len", 5,
                      *flags, status=130, send=interrupt)
        self.assertTrue(bench.result["is_partial"])
        self.assertIn(b"partial", bench.files["report.html"].lower())
        return bench

    def test_a_stopped_bench_is_partial_though_its_headline_is_whole(self):
        self.mock.set(ttft_ms=20, tpot_ms=2)
        bench = self.interrupted_behind_a_run("--ramp", "50,10", "--num-prompts", 25)
        self.assertFalse(bench.result["runs"][0]["is_partial"])
        self.mock.set(ttft_ms=20, tpot_ms=2, n_slots=4)
        bench = self.interrupted_behind_a_run("--knee", "ttft:60", "--num-prompts", 60, n=200)
        self.assertEqual(bench.result["knee"]["why"], "interrupted")

    def test_what_was_measured_before_an_error_is_kept(self):
        other = Mock(ttft_ms=5)

        def kill(_):
            wait_until("a run ended", lambda: sum(
                e["end"] is not None for e in other.requests(chunks=False)) >= 22)
            other.kill()
        bench = Bench(other.url, *RANDOM, *sizes(10, 2, 20), "--ramp", "200,2", "--flush-cache",
                      "--repeat", 2, status=1, send=kill)
        self.assertRegex(bench.err, "quern: error: http://")
        self.assertTrue(bench.result["is_partial"])
        self.assertFalse(bench.result["is_valid"])
        self.assertEqual(bench.result["runs"][0]["completed"], 20)
        self.assertGreaterEqual(len(bench.records), 20)

    def test_a_client_that_was_stopped_says_so(self):
        self.mock.set(ttft_ms=5)

        def stop(process):
            wait_until("some requests ended", lambda: self.ended() > 20)
            process.send_signal(signal.SIGSTOP)
            time.sleep(0.5)  # that it does nothing for so long is what is tested
            process.send_signal(signal.SIGCONT)
        bench = Bench(self.mock.url, *RANDOM, *sizes(10, 1, 200), "--request-rate", 100, send=stop,
                      status=None)
        self.assertGreater(bench.run["lag"]["send_p99_ms"], 100)
        self.assertFalse(bench.run["is_valid"])
        self.assertFalse(bench.result["is_valid"])
        self.assertRegex(" ".join(bench.run["invalid"]), r"(?i)lag|late|client")


class Meanwhile(OneMock):
    def test_metrics_of_each_engine(self):
        script = {"ttft_ms": 100, "tpot_ms": 20, "cached_tokens": 0.25, "n_slots": 10,
                  "tokens_per_chunk": 3, "draft_tokens": 4}
        told = {"quern": ("hit_rate", "acceptance_length"), "vllm": ("hit_rate", "acceptance_length"),
                "sglang": ("hit_rate", "acceptance_length"), "llamacpp": ()}
        for engine, figures in told.items():
            self.mock.set(engine=engine, **script)
            bench = Bench(self.mock.url, *RANDOM, *sizes(40, 61, 10), "--max-concurrency", 10)
            metrics = bench.run["metrics"]
            name = engine.replace("llamacpp", "llama.cpp")
            self.assertEqual((metrics["engine"], bench.result["server"]["engine"]), (name, name))
            for figure, value in (("hit_rate", 0.25), ("acceptance_length", 3)):
                if figure in figures:
                    # a gauge of SGLang has the warm-up in it
                    self.near(metrics[figure], value, 0.01 if engine == "sglang" else 1e-3,
                              engine + " " + figure)
                else:
                    self.assertIsNone(metrics[figure], engine + " " + figure)
            if engine in ("quern", "vllm"):
                self.assertEqual([round(x, 6) for x in metrics["acceptance_per_position"]],
                                 [1, 1, 0, 0])
            series = metrics["series"]
            self.assertEqual(max(series["running"]), 10)
            self.assertEqual(max(series["page_use"]), 1)
            self.assertEqual(len({len(values) for values in series.values()}), 1)
            server = bench.result["server"]
            self.assertEqual(server["version"], "b9876-mock" if engine == "llamacpp" else "9.8.7")
            self.assertEqual(server["quantization"], {"quern": "mxfp4", "vllm": "fp8",
                                                      "sglang": "w4afp8"}.get(engine, "Q4_K"))
            if engine != "llamacpp":
                self.assertEqual(server["draft_tokens"], 4)

    def test_a_server_without_metrics_is_measured(self):
        self.mock.set(metrics=False, ttft_ms=5)
        bench = Bench(self.mock.url, *RANDOM, *sizes(10, 3, 5))
        self.assertEqual(bench.run["completed"], 5)
        self.assertIsNone(bench.run["metrics"]["hit_rate"])
        self.assertTrue(bench.run["metrics"]["why"])

    def power(self, watts, missing=(), devices=1):
        """A bench of some seconds beside a power file of `watts(second since now)`."""
        now = time.time()
        with tempfile.NamedTemporaryFile("w", suffix=".csv") as file:
            for half in range(-10, 240):
                at_s = half / 2
                for device in range(devices):
                    if not any(low < at_s < high for low, high in missing):
                        file.write("%.3f, %.3f%s\n" % (now + at_s, watts(at_s), ", gpu%d" % device
                                                       if devices > 1 else ""))
            file.flush()
            self.mock.set(ttft_ms=200, tpot_ms=50)
            bench = Bench(self.mock.url, *RANDOM, *sizes(10, 16, 4), "--max-concurrency", 2,
                          "--power", file.name)
        return bench, bench.run["energy"], now

    def test_energy_is_the_area_under_power(self):
        bench, energy, _ = self.power(lambda at_s: 200, devices=3)
        run = bench.run
        self.assertTrue(energy["power_valid"], energy)
        self.near(energy["avg_total_gpu_power_w"], 600, 1e-3)
        self.near(energy["total_gpu_energy_j"], 600 * run["duration"], 5e-3)
        for name, n in (("successful_query", 4), ("input_token", 40), ("output_token", 64),
                        ("total_token", 104)):
            self.near(energy["joules_per_" + name], energy["total_gpu_energy_j"] / n, 1e-6)

    def test_energy_of_rising_power(self):
        bench, energy, now = self.power(lambda at_s: 100 + 20 * at_s)
        begun_s = self.served(bench)[0]["arrived_s"] + time.time() - time.monotonic()
        told = datetime.datetime.fromisoformat(bench.run["begun_utc"].replace("Z", "+00:00"))
        self.assertAlmostEqual(told.timestamp(), begun_s, delta=0.5)
        middle_s = begun_s - now + bench.run["duration"] / 2
        self.assertTrue(energy["power_valid"], energy)
        self.near(energy["avg_total_gpu_power_w"], 100 + 20 * middle_s, 0.02)

    def test_a_gap_makes_it_invalid(self):
        bench, energy, _ = self.power(lambda at_s: 200, missing=[(0.1, 60)])
        self.assertFalse(energy["power_valid"])
        self.assertTrue(energy["why"])
        for name in ("total_gpu_energy_j", "joules_per_output_token"):
            self.assertIsNone(energy[name])
        self.assertEqual(bench.run["completed"], 4)

    def test_an_accelerator_without_price_is_refused_before_anything_is_sent(self):
        self.mock.set()
        bench = Bench(self.mock.url, *RANDOM, *sizes(10, 2, 4), "--accelerator", "H1000",
                      "--accelerators", 1, status=2)
        self.assertRegex(bench.err, "^quern: error: --accelerator: H1000, expected one of")
        self.assertEqual(self.mock.requests(), [])

    def test_prices_and_break_even(self):
        self.mock.set(ttft_ms=100, tpot_ms=10)
        bench = Bench(self.mock.url, *RANDOM, *sizes(100, 20, 20), "--max-concurrency", 10,
                      "--accelerator", "H200", "--accelerators", 8)
        run, cost = bench.run, bench.run["cost"]
        self.assertEqual(sorted(round(profile["usd_per_hour"], 2) for profile in cost["profiles"]),
                         [1.41, 1.60, 1.74])  # of one
        for profile in cost["profiles"]:
            usd_per_m_s = 8 * profile["usd_per_hour"] / 3600 * 1e6
            self.near(profile["usd_per_m_output"], usd_per_m_s / run["output_throughput"], 1e-6)
            self.near(profile["usd_per_m_total"], usd_per_m_s / run["total_token_throughput"], 1e-6)
        self.near(cost["output_per_s_per_kw"], run["output_throughput"] / (8 * 1.73), 1e-6)
        wafer = sorted(round(row["output_throughput"]) for row in cost["break_even"]
                       if "MI355X" in row["reference"] and "afer" in row["reference"])
        for expected in (2001, 2405, 2502):
            self.assertTrue(any(abs(seen - expected) <= 1 for seen in wafer), (expected, wafer))
        for row in cost["break_even"]:
            self.near(row["ratio"], run["output_throughput"] / row["output_throughput"], 1e-3)


if __name__ == "__main__":
    unittest.main()
