#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""`quern bench serve` against a server whose truth is known: what it says of latencies, tokens,
caches and errors is what the script of tests/mock implies, or what the server itself noted.
"""
import json
import re
import unittest

import numpy as np

from mocking import Bench, Mock, MockTest

NEAR = 0.02  # of the issue: as the script implies, within 2 %
RANDOM = ("--dataset-name", "random", "--seed", 7)
PERCENTS = (50, 90, 95, 99)


def sizes(n_input, n_output, n_prompts):
    return ("--random-input-len", n_input, "--random-output-len", n_output,
            "--num-prompts", n_prompts)


class OneMock(MockTest):
    """Figures that are near others."""

    def near(self, seen, expected, share=NEAR, what=""):
        self.assertIsNotNone(seen, what)
        self.assertLessEqual(abs(seen - expected), share * abs(expected),
                             "%s %g, expected %g" % (what, seen, expected))

    def served(self, bench):
        """The log's requests of the bench's run: what came before them were probes and warm-ups."""
        entries = self.mock.requests()
        return entries[len(entries) - len(bench.records):]


def latencies(entries):
    """TTFT, TPOT and E2E in ms by the server's own clock."""
    ttft = [1e3 * (e["chunk_s"][0] - e["arrived_s"]) for e in entries]
    e2el = [1e3 * (e["chunk_s"][-1] - e["arrived_s"]) for e in entries]
    tpot = [1e3 * (e["chunk_s"][-1] - e["chunk_s"][0]) / (e["output_tokens"] - 1) for e in entries]
    return {"ttft": ttft, "tpot": tpot, "e2el": e2el}


class Latencies(OneMock):
    def test_fixed_times_are_what_the_script_says(self):
        self.mock.set(ttft_ms=300, tpot_ms=50)
        bench = Bench(self.mock.url, *RANDOM, *sizes(20, 20, 24), "--max-concurrency", 8,
                      "--save-detailed")
        run, entries = bench.run, self.served(bench)
        seen = latencies(entries)
        for metric, ms in (("ttft", 300), ("tpot", 50), ("itl", 50), ("e2el", 300 + 19 * 50)):
            for name in ("median", "p50"):
                self.near(run["%s_%s_ms" % (name, metric)], ms, what=name + " " + metric)
        for metric, values in seen.items():
            self.near(run["mean_%s_ms" % metric], np.mean(values), what="mean " + metric)
        # the tail of a busy machine's gaps is its own: as this side noted them
        gaps = 1e3 * np.concatenate([np.diff(r["chunk_s"]) for r in bench.records])
        self.near(run["mean_itl_ms"], np.mean(gaps), 1e-3)
        for percent in PERCENTS:
            self.near(run["p%d_itl_ms" % percent], np.percentile(gaps, percent), 0.03)
        duration_s = max(e["ended_s"] for e in entries) - min(e["arrived_s"] for e in entries)
        self.assertGreaterEqual(duration_s, 3 * 1.25 - 0.01)
        self.near(run["duration"], duration_s)
        self.near(run["request_throughput"], 24 / duration_s)
        self.near(run["output_throughput"], 24 * 20 / duration_s)
        self.near(run["total_token_throughput"], 24 * 40 / duration_s)
        self.near(run["per_user_tokens_per_s"], 20)
        self.assertEqual(run["tokens_per_chunk"], 1)
        self.assertEqual((run["completed"], run["failed"]), (24, 0))
        self.assertEqual((run["total_input_tokens"], run["total_output_tokens"]), (480, 480))
        self.assertEqual(run["finish_reasons"], {"length": 24})
        self.assertFalse(bench.result["is_partial"])

    def test_drawn_times_have_the_percentiles_that_the_server_saw(self):
        self.mock.set(ttft_ms=[200, 600], tpot_ms=[20, 60], seed=3)
        bench = Bench(self.mock.url, *RANDOM, *sizes(20, 20, 60), "--max-concurrency", 30)
        run, seen = bench.run, latencies(self.served(bench))
        for metric, values in seen.items():
            self.near(run["mean_%s_ms" % metric], np.mean(values), what=metric)
            self.near(run["std_%s_ms" % metric], np.std(values), 0.05, what="std " + metric)
            self.near(run["median_%s_ms" % metric], np.median(values), what=metric)
            for percent in PERCENTS:
                self.near(run["p%d_%s_ms" % (percent, metric)], np.percentile(values, percent),
                          NEAR if percent <= 90 else 0.1, "p%d %s" % (percent, metric))
            cdf = run["cdf"][metric + "_ms"]
            self.assertEqual(len(cdf), 101)
            self.assertEqual(cdf, sorted(cdf))
            self.near(cdf[50], np.median(values))
        # the script's own distribution, as far as 60 draws tell
        self.near(run["mean_ttft_ms"], 400, 0.15)
        self.near(run["mean_tpot_ms"], 40, 0.15)

    def test_statistics_are_those_of_the_records(self):
        self.mock.set(ttft_ms={"exponential": 80}, tpot_ms=[4, 20], output_tokens=[2, 30])
        bench = Bench(self.mock.url, *RANDOM, *sizes(30, 30, 60), "--max-concurrency", 20)
        run = bench.run
        for metric in ("ttft", "tpot", "e2el"):
            values = [r[metric + "_ms"] for r in bench.done() if r[metric + "_ms"] is not None]
            for name, value in (("mean", np.mean(values)), ("median", np.median(values)),
                                ("std", np.std(values)), ("min", min(values)),
                                ("max", max(values)), ("p99", np.percentile(values, 99))):
                self.near(run["%s_%s_ms" % (name, metric)], value, 1e-3, name + " " + metric)
        for record in bench.done():
            if record["output_tokens"] > 1:
                self.near(record["tpot_ms"], (record["e2el_ms"] - record["ttft_ms"]) /
                          (record["output_tokens"] - 1), 1e-3)
        self.assertEqual(run["total_output_tokens"],
                         sum(e["output_tokens"] for e in self.served(bench)))
        reasons = {"stop": 0, "length": 0}
        for entry in self.served(bench):
            reasons["length" if entry["output_tokens"] == 30 else "stop"] += 1
        self.assertEqual(run["finish_reasons"], {k: v for k, v in reasons.items() if v})

    def test_chunks_are_not_tokens(self):
        self.mock.set(ttft_ms=100, tpot_ms=10, tokens_per_chunk=4, draft_tokens=5)
        bench = Bench(self.mock.url, *RANDOM, *sizes(20, 41, 16), "--max-concurrency", 8)
        run = bench.run
        self.near(run["median_tpot_ms"], 10)
        self.near(run["median_itl_ms"], 40)
        self.near(run["tokens_per_chunk"], 41 / 11, 1e-6)
        self.near(run["metrics"]["acceptance_length"], 4, 1e-6)
        self.assertEqual(run["total_output_tokens"], 16 * 41)

    def test_goodput_counts_whom_all_limits_hold(self):
        self.mock.set(ttft_ms=[50, 450], tpot_ms=[5, 35], seed=5)
        bench = Bench(self.mock.url, *RANDOM, *sizes(10, 10, 60), "--max-concurrency", 60,
                      "--goodput", "ttft:250", "tpot:20")
        good = [r for r in bench.done() if r["ttft_ms"] <= 250 and r["tpot_ms"] <= 20]
        self.assertTrue(5 < len(good) < 40, len(good))
        self.near(bench.run["request_goodput"] * bench.run["duration"], len(good), 1e-3)

    def test_chat_begins_with_thinking_not_with_the_role(self):
        self.mock.set(ttft_ms=200, tpot_ms=20, early_role=True, reasoning_tokens=5,
                      template_tokens=6)
        bench = Bench(self.mock.url, *RANDOM, *sizes(40, 10, 8), "--backend", "openai-chat",
                      "--max-concurrency", 4)
        self.near(bench.run["median_ttft_ms"], 200)
        self.near(bench.run["median_tpot_ms"], 20)
        self.assertEqual(bench.run["total_output_tokens"], 80)
        for entry in self.served(bench):  # what the format adds was measured and taken off
            self.assertEqual((entry["api"], entry["prompt_tokens"]), ("chat", 40))
        self.assertEqual(bench.run["total_input_tokens"], 320)

    def test_odd_but_right_streams_are_answers(self):
        kinds = ("crlf", "comments", "slow", "connection_close", "close_framed")
        self.mock.set(ttft_ms=20, tpot_ms=2, faults=[
            {"kind": kind, "requests": [n for n in range(60) if n % len(kinds) == i]}
            for i, kind in enumerate(kinds)] + [{"kind": "huge", "requests": [25, 26],
                                                 "bytes": 3 << 20}])
        for backend in ("openai", "openai-chat"):
            bench = Bench(self.mock.url, *RANDOM, *sizes(10, 10, 20), "--max-concurrency", 4,
                          "--backend", backend)
            self.assertEqual(bench.run["errors"], {})
            self.assertEqual(bench.run["completed"], 20)
            self.assertEqual(bench.run["total_output_tokens"], 200)


class Tokens(OneMock):
    def test_prompts_have_the_lengths_asked_for(self):
        self.mock.set()
        for backend in ("openai", "openai-chat"):
            bench = Bench(self.mock.url, *RANDOM, *sizes(777, 3, 10), "--backend", backend)
            self.assertEqual({e["prompt_tokens"] for e in self.served(bench)}, {777})
            self.assertEqual({r["prompt_tokens"] for r in bench.records}, {777})
            self.assertEqual({r["prompt_tokens_expected"] for r in bench.records}, {777})
            self.assertEqual(bench.run["total_input_tokens"], 7770)

    def test_range_ratio_means_what_is_said(self):
        for meaning, low, high in (("vllm", 150, 450), ("sglang", 150, 300)):
            self.mock.set()
            bench = Bench(self.mock.url, *RANDOM, *sizes(300, 40, 80), "--random-range-ratio",
                          0.5, "--range-ratio-meaning", meaning)
            lengths = [e["prompt_tokens"] for e in self.served(bench)]
            self.assertTrue(low <= min(lengths) < low + 0.2 * (high - low), min(lengths))
            self.assertTrue(high - 0.2 * (high - low) < max(lengths) <= high, max(lengths))
            self.near(np.mean(lengths), (low + high) / 2, 0.1)
            outputs = [e["max_tokens"] for e in self.served(bench)]
            self.assertGreater(len(set(outputs)), 5)
            self.assertTrue(40 * low / 300 <= min(outputs) and max(outputs) <= 40 * high / 300)
            self.assertEqual(bench.run["total_input_tokens"], sum(lengths))
            self.assertEqual(bench.run["total_output_tokens"], sum(outputs))
            self.assertEqual(bench.result["workload"]["range_ratio_meaning"],
                             "around" if meaning == "vllm" else "below")

    def test_lengths_of_the_workload_are_those_made(self):
        self.mock.set()
        bench = Bench(self.mock.url, *RANDOM, *sizes(1006, 3, 5), "--scale", 0.1)
        workload = bench.result["workload"]
        self.assertEqual({e["prompt_tokens"] for e in self.served(bench)}, {101})
        self.assertEqual((workload["input_tokens"], workload["output_tokens"]), (101, 1))
        self.assertEqual((workload["made"]["requests"], workload["made"]["min_input"],
                          workload["made"]["max_output"]), (5, 101, 1))
        self.assertIn("lengths exact", bench.out)

    def test_prompts_that_were_seen_before_are_warned_of(self):
        self.mock.set(cached_tokens="prefix")
        flags = ("--dataset-name", "prefix_repetition", "--salt", 1, "--num-prompts", 8,
                 "--prefix-repetition-prefix-len", 160, "--prefix-repetition-suffix-len", 160,
                 "--prefix-repetition-num-prefixes", 2, "--prefix-repetition-output-len", 4)
        for n_warned in (0, 1):
            bench = Bench(self.mock.url, *flags)
            self.assertEqual(" ".join(bench.result["warnings"]).count("seen these prompts before"),
                             n_warned)

    def test_what_is_not_streamed_has_no_tpot(self):
        self.mock.set(ttft_ms=20, tpot_ms=2, faults=[{"kind": "whole"}])
        bench = Bench(self.mock.url, *RANDOM, *sizes(20, 20, 6))
        self.assertIsNone(bench.run["mean_tpot_ms"])
        self.assertIsNone(bench.run["per_user_tokens_per_s"])
        self.assertRegex(" ".join(bench.result["warnings"]), "6 of 6 answers came in one piece")

    def test_ids_are_sent_where_asked_for(self):
        self.mock.set(keep_bodies=True)
        bench = Bench(self.mock.url, "--dataset-name", "random-ids", "--tokenizer",
                      "models/glm-nano", *sizes(64, 4, 6))
        for entry in self.served(bench):
            prompt = entry["body"]["prompt"]
            self.assertTrue(all(isinstance(i, int) for i in prompt), prompt)
            self.assertEqual(len(prompt), 64)

    def test_without_usage_it_says_how_tokens_were_counted(self):
        self.mock.set(ttft_ms=20, tpot_ms=2, tokens_per_chunk=3, usage="none")
        bench = Bench(self.mock.url, *RANDOM, *sizes(30, 25, 10), "--max-concurrency", 5)
        self.assertEqual(bench.run["total_output_tokens"], 10 * 9)  # events
        self.assertRegex(" ".join(bench.result["warnings"]), "10 answers were counted by chunks")
        self.assertIsNone(bench.run["total_cached_tokens"])
        self.assertIsNone(bench.run["hit_rate"])
        bench = Bench(self.mock.url, *RANDOM, *sizes(30, 25, 10), "--max-concurrency", 5,
                      "--tokenizer", "models/glm-nano", "--backend", "openai-chat")
        self.assertNotIn("counted by chunks", " ".join(bench.result["warnings"]))
        self.assertGreater(bench.run["total_output_tokens"], 250)  # some words are two of its

    def test_cached_tokens_are_those_told(self):
        self.mock.set(cached_tokens=0.25)
        bench = Bench(self.mock.url, *RANDOM, *sizes(400, 3, 10))
        self.assertEqual(bench.run["total_cached_tokens"], 1000)
        self.near(bench.run["hit_rate"], 0.25, 1e-6)
        self.assertEqual({r["cached_tokens"] for r in bench.records}, {100})

    def test_hit_rate_of_wafer_is_the_one_constructed(self):
        for backend in ("openai", "openai-chat"):
            self.mock.set(cached_tokens="prefix", template_tokens=4)
            bench = Bench(self.mock.url, "--workload", "wafer", "--scale", 0.08, "--num-prompts",
                          20, "--request-rate", 50, "--backend", backend)
            # 12,000 and 8,000 tokens; the server caches blocks of 16
            self.assertEqual({e["prompt_tokens"] for e in self.served(bench)}, {1600})
            self.assertEqual({e["cached_tokens"] for e in self.served(bench)}, {960})
            self.near(bench.run["hit_rate"], 0.6, 1e-9)
            self.near(bench.result["workload"]["hit_rate"], 0.6, 1e-9)
            self.near(bench.run["metrics"]["hit_rate"], 0.6, 1e-9)
            self.assertEqual(bench.result["workload"]["scale"], 0.08)
            self.assertEqual(bench.run["total_output_tokens"], 20 * 80)
            for record in bench.records:
                self.assertEqual(record["shared_tokens_expected"], 960)
                self.assertEqual(record["cached_tokens"], 960)

    def test_groups_share_their_prefix(self):
        self.mock.set(cached_tokens="prefix")
        bench = Bench(self.mock.url, "--dataset-name", "prefix_repetition", "--num-prompts", 24,
                      "--prefix-repetition-prefix-len", 160, "--prefix-repetition-suffix-len", 160,
                      "--prefix-repetition-num-prefixes", 4, "--prefix-repetition-output-len", 4)
        self.assertEqual([e["prompt_tokens"] for e in self.served(bench)], 24 * [320])
        self.assertEqual([e["cached_tokens"] for e in self.served(bench)], 24 * [160])

    def test_history_grows_by_what_was_answered(self):
        self.mock.set(cached_tokens="prefix", keep_bodies=True, template_tokens=3)
        bench = Bench(self.mock.url, "--workload", "multi-turn", "--backend", "openai-chat",
                      "--num-prompts", 12, "--turns", 3, "--random-input-len", 50,
                      "--random-output-len", 20, "--max-concurrency", 4)
        by_first, answers = {}, {}
        for entry in self.served(bench):
            messages = entry["body"]["messages"]
            by_first.setdefault(messages[0]["content"], []).append(entry)
            answers[entry["output_text"].strip()] = entry
        self.assertEqual(sorted(len(turns) for turns in by_first.values()), [3, 3, 3, 3])
        for turns in by_first.values():
            for before, after in zip(turns, turns[1:]):
                old, new = before["body"]["messages"], after["body"]["messages"]
                self.assertEqual(new[:len(old)], old)
                self.assertEqual([m["role"] for m in new[len(old):]], ["assistant", "user"])
                said = new[len(old)]["content"]
                self.assertEqual(said.split(), before["output_text"].split())
                # all of the history was seen before, but what does not fill a block
                history = before["prompt_tokens"] + before["output_tokens"]
                self.assertEqual(after["cached_tokens"], history // 16 * 16)
                self.assertGreaterEqual(after["arrived_s"], before["ended_s"])
        turns = [(r["conversation"], r["turn"]) for r in bench.records]
        self.assertEqual(len(set(turns)), 12)


class Errors(OneMock):
    STREAM = {"after_chunks": 2}
    FAULTS = (
        ({"kind": "status", "status": 500}, "http_5xx"),
        ({"kind": "status", "status": 502, "html": True}, "http_5xx"),
        ({"kind": "status", "status": 404}, "http_4xx"),
        ({"kind": "status", "status": 413, "html": True}, "http_4xx"),
        ({"kind": "status", "status": 429}, "rate_limited"),
        ({"kind": "close"}, "cut_off"),
        ({"kind": "close", "after_chunks": 0}, "cut_off"),
        ({"kind": "close", **STREAM}, "cut_off"),
        ({"kind": "reset"}, "cut_off"),
        ({"kind": "reset", **STREAM}, "cut_off"),
        ({"kind": "hang"}, "timeout"),
        ({"kind": "hang", **STREAM}, "timeout"),
        ({"kind": "malformed"}, "malformed"),
        ({"kind": "malformed", "how": "wrong_shape", **STREAM}, "malformed"),
        ({"kind": "malformed", "how": "half_utf8", **STREAM}, "malformed"),
        ({"kind": "error_event"}, "stream_error"),
        ({"kind": "error_event", **STREAM}, "stream_error"),
        ({"kind": "no_finish"}, "cut_off"),
        ({"kind": "empty"}, "empty"),
        ({"kind": "usage", "usage": "too_many"}, "wrong_usage"),
        ({"kind": "usage", "usage": "too_few"}, "wrong_usage"),
        ({"kind": "usage", "usage": "zero"}, "wrong_usage"),
        ({"kind": "usage", "usage": "total"}, "wrong_usage"),
        ({"kind": "usage", "usage": "negative"}, "wrong_usage"),
        ({"kind": "usage", "usage": "text"}, "wrong_usage"),
        ({"kind": "usage", "usage": "cached"}, "wrong_usage"),
        ({"kind": "no_done"}, "done"),
        ({"kind": "whole"}, "done"),
    )
    FIRST, EVERY = 8, 2  # probes come before; between two faults one request is right

    def faults(self):
        return [{**fault, "requests": [self.FIRST + self.EVERY * i]}
                for i, (fault, _) in enumerate(self.FAULTS)]

    def test_each_kind_is_counted_as_such(self):
        n = self.FIRST + self.EVERY * len(self.FAULTS)
        for backend in ("openai", "openai-chat"):
            self.mock.set(ttft_ms=5, tpot_ms=1, faults=self.faults())
            bench = Bench(self.mock.url, *RANDOM, *sizes(10, 8, n), "--max-concurrency", 1,
                          "--timeout", 1, "--backend", backend, "--ignore-eos")
            entries, counts = self.mock.requests(), {}
            n_probes = len(entries) - len(bench.records)
            self.assertLess(n_probes, self.FIRST)
            for number, record in enumerate(bench.records, n_probes):
                i = (number - self.FIRST) / self.EVERY
                fault, expected = {}, "done"
                if i in range(len(self.FAULTS)):
                    fault, expected = self.FAULTS[int(i)]
                self.assertEqual(record["end"], expected, (fault, record))
                if expected != "done":
                    self.assertTrue(record["message"], record)
                    counts[expected] = counts.get(expected, 0) + 1
            run = bench.run
            self.assertEqual(run["errors"], counts)
            self.assertEqual(set(run["error_messages"]), set(counts))
            self.assertEqual(run["failed"], sum(counts.values()))
            self.assertEqual(run["completed"] + run["failed"], n)
            self.near(run["success_rate"], run["completed"] / n, 1e-6)
            self.assertEqual(run["total_output_tokens"], 8 * run["completed"])
            self.assertEqual(run["cancelled"], 0)

    def test_random_faults_end_each_request_once(self):
        kinds = ("close", "reset", "malformed", "error_event", "status")
        self.mock.set(ttft_ms=[1, 9], tpot_ms=1, seed=11, faults=[
            {"kind": kind, "probability": 0.06, "after_chunks": i} for i, kind in enumerate(kinds)])
        bench = Bench(self.mock.url, *RANDOM, *sizes(10, 8, 400), "--max-concurrency", 40)
        entries = self.served(bench)
        truth = {"rate_limited": 0}
        for entry in entries:
            truth[entry["end"]] = truth.get(entry["end"], 0) + 1
        errors = bench.run["errors"]
        self.assertEqual(errors["http_5xx"], truth["status"])
        self.assertEqual(errors["stream_error"], truth["error_event"])
        self.assertEqual(sum(errors.values()) + bench.run["completed"], 400)
        self.assertEqual(errors["cut_off"], truth["close"] + truth["reset"])
        self.assertEqual(bench.run["completed"] + errors["malformed"], truth["done"] +
                         truth.get("left", 0))

    def test_limits_of_a_server_are_counted(self):
        self.mock.set(ttft_ms=50, n_slots=2, max_queue=3)
        bench = Bench(self.mock.url, *RANDOM, *sizes(10, 1, 30), "--max-concurrency", 15)
        n = sum(e["status"] == 503 for e in self.served(bench))
        self.assertGreater(n, 0)
        self.assertEqual(bench.run["errors"], {"http_5xx": n})
        self.mock.set(rate_limit=5)
        bench = Bench(self.mock.url, *RANDOM, *sizes(10, 1, 30), "--max-concurrency", 3)
        n = sum(e["status"] == 429 for e in self.served(bench))
        self.assertGreater(n, 10)
        self.assertEqual(bench.run["errors"], {"rate_limited": n})

    def test_nobody_there(self):
        with Mock() as other:
            url = other.url
        bench = Bench(url, *RANDOM, *sizes(10, 1, 3), "--tokenizer", "models/glm-nano",
                      status=None)
        self.assertIn(bench.status, (1, 4))
        self.assertRegex(bench.err, r"quern: error: .*%s" % re.escape(url.split("//")[1]))

    def test_all_failed_is_a_failure(self):
        self.mock.set(faults=[{"kind": "status", "status": 500}])
        bench = Bench(self.mock.url, *RANDOM, *sizes(10, 1, 6), status=1)
        self.assertEqual(bench.run["errors"], {"http_5xx": 6})
        self.assertEqual(bench.run["completed"], 0)
        for name in ("mean_ttft_ms", "p99_tpot_ms", "hit_rate"):
            self.assertIsNone(bench.run[name], name)
        self.assertIn("report.html", bench.files)

    def test_key_and_headers_are_sent(self):
        self.mock.set(api_key="s3cret-k3y")
        bench = Bench(self.mock.url, *RANDOM, *sizes(10, 1, 2), status=1)
        self.assertEqual(bench.run["errors"], {"http_4xx": 2})
        bench = Bench(self.mock.url, *RANDOM, *sizes(10, 1, 2), "--api-key", "s3cret-k3y")
        self.assertEqual(bench.run["completed"], 2)
        for name, data in bench.files.items():
            self.assertNotIn(b"s3cret-k3y", data, name)


class Files(OneMock):
    def test_reports_stand_alone(self):
        self.mock.set(ttft_ms=20, tpot_ms=2, cached_tokens="prefix")
        bench = Bench(self.mock.url, *RANDOM, *sizes(30, 10, 10), "--max-concurrency", 5,
                      "--note", "quantization=int3-test")
        self.assertLessEqual({"result.json", "requests.jsonl", "report.md", "report.html"},
                             set(bench.files))
        page = bench.files["report.html"].decode()
        self.assertTrue(page.lower().startswith("<!doctype html>"), page[:80])
        fetched = re.findall(r"(?:src|href|action|data|poster)\s*=\s*[\"']?\s*(?:https?:)?//[^\"' >]*|"
                             r"@import|url\(\s*[\"']?(?:https?:)?//", page)
        links = [match for match in fetched if not match.startswith("href")]
        self.assertEqual(links, [])
        self.assertNotIn("<link", page)
        self.assertIn("int3-test", page)
        for text in (page, bench.files["report.md"].decode()):
            self.assertIn("mock", text)
        self.assertEqual(bench.result["server"]["notes"], {"quantization": "int3-test"})

    def test_what_servers_say_is_text_not_markup(self):
        evil = "<script src=//x.y/z></script>"
        self.mock.set(model=evil, faults=[{"kind": "status", "status": 500, "html": True,
                                           "requests": [8]}])
        bench = Bench(self.mock.url, *RANDOM, *sizes(10, 2, 20), "--note", "by=<img src=//x.y>",
                      model=None)
        self.assertEqual(bench.result["model_id"], evil)
        self.assertEqual(bench.run["errors"], {"http_5xx": 1})
        for name in ("report.html", "report.md"):
            # in Markdown lines behind four blanks are code
            page = re.sub(r"(?m)^    .*", "", bench.files[name].decode())
            self.assertIn("&lt;script src=", page)
            for text in ("<script src", "<img src=//", "<h1>Scripted"):
                self.assertNotIn(text, page, name)

    def test_fields_of_vllm_are_of_the_run(self):
        self.mock.set(ttft_ms=20, tpot_ms=2)
        bench = Bench(self.mock.url, *RANDOM, *sizes(30, 10, 10), "--max-concurrency", 5)
        result = bench.result
        self.assertEqual(result["format"], "quern-bench-serve/1")
        self.assertEqual((result["model_id"], result["num_prompts"]), ("mock", 10))
        self.assertEqual((result["completed"], result["max_concurrency"]), (10, 5))
        self.assertRegex(result["date"], r"^\d{8}-\d{6}$")
        for name in ("duration", "total_input_tokens", "total_output_tokens", "request_throughput",
                     "output_throughput", "total_token_throughput",
                     *("%s_%s_ms" % (statistic, metric)
                       for statistic in ("mean", "median", "std", "p99")
                       for metric in ("ttft", "tpot", "itl", "e2el"))):
            self.assertEqual(result[name], bench.run[name], name)

    def test_json_on_stdout_is_the_result(self):
        self.mock.set()
        bench = Bench(self.mock.url, *RANDOM, *sizes(10, 3, 3), "--json")
        printed = json.loads(bench.out)
        self.assertEqual(printed["runs"], bench.result["runs"])

    def test_save_detailed_has_the_moments_of_chunks(self):
        self.mock.set(ttft_ms=50, tpot_ms=20)
        bench = Bench(self.mock.url, *RANDOM, *sizes(10, 6, 4), "--save-detailed",
                      "--max-concurrency", 1)
        for record, entry in zip(bench.records, self.served(bench)):
            self.assertEqual(len(record["chunk_s"]), 6)
            gaps = np.diff(record["chunk_s"]) - np.diff(entry["chunk_s"])
            self.assertLess(np.median(np.abs(gaps)), 0.005)

    def test_model_is_the_only_one_of_the_server(self):
        self.mock.set(model="some/model")
        bench = Bench(self.mock.url, *RANDOM, *sizes(10, 2, 3), model=None)
        self.assertEqual(bench.result["model_id"], "some/model")
        self.assertEqual({e["body"]["model"] for e in self.served(bench)}, {"some/model"})

    def test_bodies_have_what_was_asked_for(self):
        self.mock.set()
        bench = Bench(self.mock.url, *RANDOM, *sizes(10, 2, 3), "--temperature", 0.5, "--ignore-eos",
                      "--extra-body", '{"top_k": 5, "tag": {"a": [1]}}')
        for entry in self.served(bench):
            body = entry["body"]
            self.assertEqual((body["temperature"], body["top_k"], body["tag"]), (0.5, 5, {"a": [1]}))
            self.assertIs(body["ignore_eos"], True)
            self.assertIs(body["stream"], True)
            self.assertEqual(body["stream_options"], {"include_usage": True})


if __name__ == "__main__":
    unittest.main()
