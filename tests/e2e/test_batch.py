#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""quern batch as users run it: answers are those of quern run, wrong lines are told and the rest
goes on, and a run that was killed goes on without a gap or a double.
"""
import json
import os
import re
import resource
import signal
import subprocess
import unittest

from test_cli import NANO, QUERN, QUESTION, ROOT, Case, quern, start, wait_until

with open(QUERN, "rb") as program:
    IS_SANITIZED = re.search(b"__[at]san_init", program.read()) is not None

WEATHER = [{"type": "function", "function": {
    "name": "get_weather", "description": "Get the weather of a city",
    "parameters": {"type": "object", "properties": {
        "city": {"type": "string"}, "limit": {"type": "integer", "default": 18446744073709551615}},
        "required": ["city"]}}}]


def problems(task, n):
    with open(os.path.join(ROOT, "tests/eval/nano_%s.jsonl" % task), encoding="utf-8") as file:
        return [json.loads(line) for line, _ in zip(file, range(n))]


def chat(custom_id, text=QUESTION, **body):
    body = {"temperature": 0, "messages": [{"role": "user", "content": text}], **body}
    return {"custom_id": custom_id, "method": "POST", "url": "/v1/chat/completions", "body": body}


def completion(custom_id, prompt, **body):
    return {"custom_id": custom_id, "method": "POST", "url": "/v1/completions",
            "body": {"temperature": 0, "prompt": prompt, **body}}


class Batch(Case):
    """What the tests share; it has none."""

    def put(self, lines, name="in.jsonl"):
        return self.write(name, "".join((line if isinstance(line, str) else json.dumps(line)) + "\n"
                                        for line in lines))

    def records(self, name="out.jsonl"):
        with open(self.path(name), encoding="utf-8") as file:
            return [json.loads(line) for line in file]

    def batch(self, lines, *arguments):
        """Records by custom_id, and the summary."""
        result = self.succeed("batch", NANO, "-q", "-i", self.put(lines), "-o",
                              self.path("out.jsonl"), "--json", *arguments)
        records = self.records()
        self.assertEqual(len({r["id"] for r in records}), len(records))
        return {r["custom_id"]: r for r in records}, json.loads(result.out)

    def body(self, record, status=200):
        self.assertEqual(set(record), {"id", "custom_id", "response", "error"})
        self.assertEqual(record["response"]["status_code"], status, record)
        self.assertEqual(record["error"] is None, status == 200)
        return record["response"]["body"]


class Answers(Batch):
    def test_are_those_of_run(self):
        tasks = [p for task in ("arithmetic", "word_problem", "transform", "tool_call")
                 for p in problems(task, 4)]
        lines = [{"custom_id": str(i), "method": "POST", "url": "/v1/chat/completions",
                  "body": {"messages": p["messages"], "temperature": 0,
                           **({"tools": p["tools"]} if "tools" in p else {})}}
                 for i, p in enumerate(tasks)]
        records, summary = self.batch(lines, "--max-num-seqs", "5")
        self.assertEqual(len(records), len(tasks))
        usages = []
        for i, p in enumerate(tasks):
            flags = ["--messages", self.write("m.json", json.dumps(p["messages"]))]
            if "tools" in p:
                flags += ["--tools", self.write("t.json", json.dumps(p["tools"]))]
            run = self.answer(*flags)
            body = self.body(records[str(i)])
            self.assertEqual((body["object"], len(body["choices"])), ("chat.completion", 1))
            choice, usage = body["choices"][0], body["usage"]
            message = choice["message"]
            self.assertEqual(choice["finish_reason"], run["finish_reason"])
            self.assertEqual(message["content"] or "", run["text"])
            self.assertEqual(message["reasoning_content"] or "", run["reasoning"])
            self.assertEqual([c["function"] for c in message.get("tool_calls", [])],
                             [c["function"] for c in run["tool_calls"]])
            self.assertEqual((usage["prompt_tokens"], usage["completion_tokens"]),
                             (run["usage"]["prompt_tokens"], run["usage"]["completion_tokens"]))
            self.assertEqual(usage["completion_tokens_details"]["reasoning_tokens"],
                             run["usage"]["reasoning_tokens"])
            usages.append(usage)
        self.assertEqual((summary["requests"], summary["failed"]), (len(tasks), 0))
        for key, mine in (("prompt_tokens", "prompt_tokens"),
                          ("generated_tokens", "completion_tokens")):
            self.assertEqual(summary[key], sum(u[mine] for u in usages))
        self.assertGreater(summary["acceptance_length"], 1.5)
        self.assertGreater(summary["tokens_per_s"], 0)

    def test_parameters_change_what_they_say(self):
        story = "Once upon a time"
        cases = {
            "seed": ({"temperature": 1, "seed": 7, "max_tokens": 20, "ignore_eos": True},
                     ["--temperature", "1", "--seed", "7"]),
            "top_p": ({"temperature": 1, "seed": 7, "top_p": 0.5, "max_tokens": 20,
                       "ignore_eos": True}, ["--temperature", "1", "--seed", "7", "--top-p", "0.5"]),
            "top_k": ({"temperature": 1.5, "seed": 8, "top_k": 5, "max_tokens": 20,
                       "ignore_eos": True}, ["--temperature", "1.5", "--seed", "8", "--top-k", "5"]),
            "min_p": ({"temperature": 1.5, "seed": 8, "min_p": 0.1, "max_tokens": 20,
                       "ignore_eos": True}, ["--temperature", "1.5", "--seed", "8", "--min-p", "0.1"]),
            "penalties": ({"repetition_penalty": 1.3, "presence_penalty": 0.5,
                           "frequency_penalty": 0.5, "max_tokens": 20, "ignore_eos": True},
                          ["--repetition-penalty", "1.3", "--presence-penalty", "0.5",
                           "--frequency-penalty", "0.5"]),
            "bias": ({"logit_bias": {"500": 100}, "max_tokens": 20, "ignore_eos": True},
                     ["--logit-bias", "500:100"]),
        }
        lines = [completion(name, story, **body) for name, (body, _) in cases.items()]
        records, _ = self.batch(lines + [completion("plain", story, max_tokens=20,
                                                    ignore_eos=True)])
        texts = {}
        for name, (_, flags) in cases.items():
            run = self.answer("--raw", "-p", story, "--max-tokens", "20", "--ignore-eos", *flags)
            choice = self.body(records[name])["choices"][0]
            self.assertEqual((choice["text"], choice["finish_reason"]), (run["text"], "length"))
            texts[choice["text"]] = name
        texts[self.body(records["plain"])["choices"][0]["text"]] = "plain"
        self.assertEqual(len(texts), len(cases) + 1, texts)

    def test_thinking_stops_and_limits(self):
        lines = [chat("on"), chat("off", chat_template_kwargs={"enable_thinking": False}),
                 chat("none", reasoning_effort="none"), chat("high", reasoning_effort="high"),
                 chat("stop", stop=["is"]), chat("cut", max_completion_tokens=3, max_tokens=9),
                 completion("short", "Once upon a time", max_tokens=4, ignore_eos=True),
                 completion("default", "Once upon a time", ignore_eos=True),
                 completion("stop id", "Once upon a time", stop_token_ids=[0, 11], max_tokens=40)]
        records, _ = self.batch(lines)
        for name, flags in (("off", ["--thinking", "off"]), ("none", ["--thinking", "off"]),
                            ("high", ["--reasoning-effort", "high"]), ("stop", ["--stop", "is"])):
            run = self.answer("-p", QUESTION, *flags)
            body = self.body(records[name])
            self.assertEqual(body["choices"][0]["message"]["content"], run["text"])
            self.assertEqual(body["usage"]["prompt_tokens"], len(run["prompt_ids"]))
        counts = {name: self.body(r)["usage"]["completion_tokens"] for name, r in records.items()}
        self.assertEqual((counts["cut"], counts["short"], counts["default"]), (3, 4, 16))
        self.assertEqual(self.body(records["cut"])["choices"][0]["finish_reason"], "length")
        run = self.answer("--raw", "-p", "Once upon a time", "--stop-id", "0", "--stop-id", "11",
                          "--max-tokens", "40")
        choice = self.body(records["stop id"])["choices"][0]
        self.assertEqual((choice["text"], choice["finish_reason"]), (run["text"], "stop"))

    def test_several_choices_and_prompts(self):
        hot = {"temperature": 1.5, "seed": 5, "max_tokens": 12, "ignore_eos": True}
        ids = self.tokenize("Hello there")["ids"]
        lines = [completion("n", "Once upon a time", n=3, **hot),
                 completion("texts", ["Once upon a time", "Hello there"], n=2, **hot),
                 completion("ids", [ids, ids[:1]], **hot), completion("list", ids, **hot)]
        records, _ = self.batch(lines)
        texts = {name: [c["text"] for c in self.body(r)["choices"]] for name, r in records.items()}
        for name, body in ((name, self.body(r)) for name, r in records.items()):
            self.assertEqual([c["index"] for c in body["choices"]], list(range(len(texts[name]))))
            self.assertEqual(body["usage"]["completion_tokens"], 12 * len(texts[name]))
        wanted = [self.answer("--raw", "-p", "Once upon a time", "--temperature", "1.5", "--seed",
                              str(seed), "--max-tokens", "12", "--ignore-eos")["text"]
                  for seed in (5, 6, 7)]
        self.assertEqual(texts["n"], wanted)
        self.assertEqual(texts["texts"][:2], wanted[:2])
        self.assertEqual(texts["texts"][2], texts["list"][0])
        self.assertEqual(texts["ids"][0], texts["list"][0])
        self.assertEqual(self.body(records["n"])["usage"]["prompt_tokens"],
                         len(self.tokenize("Once upon a time")["ids"]))

    def test_logprobs(self):
        run = self.answer("-p", QUESTION, "--logprobs", "2")
        raw = self.answer("--raw", "-p", "Once upon a time", "--logprobs", "2", "--max-tokens", "6")
        records, _ = self.batch([chat("c", logprobs=True, top_logprobs=2), chat("plain"),
                                 completion("t", "Once upon a time", logprobs=2, max_tokens=6)])
        self.assertIsNone(self.body(records["plain"])["choices"][0]["logprobs"])
        content = self.body(records["c"])["choices"][0]["logprobs"]["content"]
        self.assertEqual([e["token"] for e in content], [e["token"] for e in run["logprobs"]])
        for mine, theirs in zip(content, run["logprobs"]):
            self.assertAlmostEqual(mine["logprob"], theirs["logprob"], 5)
            self.assertEqual([t["token"] for t in mine["top_logprobs"]],
                             [t["token"] for t in theirs["top"]])
            self.assertEqual(bytes(mine["bytes"]).decode(), mine["token"])
        lists = self.body(records["t"])["choices"][0]["logprobs"]
        self.assertEqual(lists["tokens"], [e["token"] for e in raw["logprobs"]])
        text = self.body(records["t"])["choices"][0]["text"]
        for token, offset, top in zip(lists["tokens"], lists["text_offset"],
                                      lists["top_logprobs"]):
            self.assertTrue(text.startswith(token, offset))
            self.assertIn(token, top)

    def test_prompts_are_told_of(self):
        ids = self.tokenize("Once upon a time")["ids"]
        records, _ = self.batch([
            completion("p", "Once upon a time", prompt_logprobs=1, n=2, max_tokens=2),
            completion("e", "Once upon a time", echo=True, logprobs=1, max_tokens=0),
            completion("both", "Once upon a time", echo=True, n=2, max_tokens=3),
            completion("plain", "Once upon a time", max_tokens=3), chat("c", prompt_logprobs=0)])
        first, second = (c["prompt_logprobs"] for c in self.body(records["p"])["choices"])
        self.assertEqual(first, second)
        self.assertIsNone(first[0])
        echo = self.body(records["e"])["choices"][0]
        self.assertEqual((echo["text"], echo["finish_reason"]), ("Once upon a time", "length"))
        self.assertEqual("".join(echo["logprobs"]["tokens"]), echo["text"])
        for i, (token, logprob) in enumerate(zip(ids, echo["logprobs"]["token_logprobs"])):
            if i == 0:
                self.assertIsNone(logprob)
                continue
            mine = first[i][str(token)]
            self.assertEqual((mine["logprob"], mine["decoded_token"]),
                             (logprob, echo["logprobs"]["tokens"][i]))
            self.assertEqual(len(first[i]), 1 if mine["rank"] == 1 else 2)
            self.assertEqual(sorted(e["logprob"] for e in first[i].values())[-1],
                             next(e["logprob"] for e in first[i].values() if e["rank"] == 1))
        for choice in self.body(records["both"])["choices"]:
            self.assertEqual(choice["text"], "Once upon a time" +
                             self.body(records["plain"])["choices"][0]["text"])
        body = self.body(records["c"])
        self.assertEqual(len(body["prompt_logprobs"]), body["usage"]["prompt_tokens"])

    def test_tools(self):
        ask = "What is the weather in Oslo?"
        talk = [{"role": "user", "content": ask},
                {"role": "assistant", "tool_calls": [{"id": "x", "type": "function", "function": {
                    "name": "get_weather", "arguments": '{"city": "Oslo"}'}}]},
                {"role": "tool", "tool_call_id": "x",
                 "content": '{"weather": "sunny", "celsius": 21}'}]
        records, _ = self.batch([chat("call", ask, tools=WEATHER, n=2),
                                 chat("no", ask, tools=WEATHER, tool_choice="none"),
                                 chat("plain", ask), chat("back", tools=WEATHER, messages=talk)])
        ids = set()
        for choice in self.body(records["call"])["choices"]:
            message = choice["message"]
            self.assertEqual((choice["finish_reason"], message["content"]), ("tool_calls", None))
            (call,) = message["tool_calls"]
            self.assertEqual((call["type"], call["function"]["name"]), ("function", "get_weather"))
            self.assertEqual(json.loads(call["function"]["arguments"]), {"city": "Oslo"})
            ids.add(call["id"])
        self.assertEqual(len(ids), 2)
        # The number of the schema is in the prompt as it was written.
        run = self.answer("-p", ask, "--tools", self.write("t.json", json.dumps(WEATHER)))
        self.assertEqual(self.body(records["call"])["usage"]["prompt_tokens"],
                         len(run["prompt_ids"]))
        self.assertEqual(self.body(records["no"])["choices"], self.body(records["plain"])["choices"])
        self.assertIn("21", self.body(records["back"])["choices"][0]["message"]["content"])

    def test_dummy_weights_say_so(self):
        lines = [completion("a", [1, 2, 3], max_tokens=3, ignore_eos=True)]
        records, summary = self.batch(lines, "--load-format", "dummy")
        self.assertEqual((self.body(records["a"])["weights"], summary["weights"]), ("dummy",) * 2)

    def test_the_cache_is_told_of_and_can_be_switched_off(self):
        story = " ".join(["Ravi reads 6 pages on Monday."] * 60)
        lines = [completion(str(i), story, max_tokens=4, ignore_eos=True) for i in range(4)]
        with_cache, one = self.batch(lines, "--max-num-seqs", "1")
        without, none = self.batch(lines, "--max-num-seqs", "1", "--no-prefix-cache", "--overwrite")
        cached = [self.body(r)["usage"]["prompt_tokens_details"]["cached_tokens"]
                  for r in with_cache.values()]
        self.assertGreater(min(sorted(cached)[1:]), 64)
        self.assertEqual((one["cached_tokens"], none["cached_tokens"]), (sum(cached), 0))
        for i in with_cache:
            self.assertEqual(self.body(with_cache[i])["choices"], self.body(without[i])["choices"])


class Refusals(Batch):
    def test_bad_lines_are_told_and_the_rest_goes_on(self):
        good = chat("good")
        bad = ["nonsense", "[1]", '"text"', "{", '{"custom_id": "x"} trailing', "\u00e9",
               '{"custom_id": "a", "custom_id": "b"}', {}, {**good, "custom_id": 5},
               {**good, "custom_id": ""}]
        known = [{**good, "custom_id": "get", "method": "GET"},
                 {k: v for k, v in {**good, "custom_id": "no method"}.items() if k != "method"},
                 {**good, "custom_id": "url", "url": "/v1/embeddings"},
                 {**good, "custom_id": "url type", "url": 7},
                 {k: v for k, v in {**good, "custom_id": "no body"}.items() if k != "body"},
                 {**good, "custom_id": "body", "body": "text"}, {**good, "custom_id": "good"}]
        lines = [*bad, good, "", "  ", *known]
        result = self.succeed("batch", NANO, "-i", self.put(lines), "-o", self.path("out.jsonl"))
        self.assertIn("%d requests, %d failed" % (len(bad) + len(known) + 1,
                                                  len(bad) + len(known)), result.err)
        records = self.records()
        self.assertEqual(len(records), len(bad) + len(known) + 1)
        failed = [r for r in records if r["error"] is not None]
        numbers = [r["error"]["line"] for r in failed]
        self.assertEqual(sorted(numbers), list(range(1, 11)) + list(range(14, 21)))
        for r in failed:
            error = self.body(r, 400)["error"]
            self.assertEqual(error["type"], "invalid_request_error")
            self.assertIn("line %d: " % r["error"]["line"], error["message"])
            self.assertEqual(r["custom_id"] is None, r["error"]["line"] <= 10)
        self.assertEqual(failed[-1]["error"]["code"], "duplicate_custom_id")

    def test_what_is_not_built_is_refused_by_name(self):
        both = {"temperature": [-1, 101, "x", True], "top_p": [0, 2], "min_p": [-0.1, 2],
                "top_k": [-2, 1.5], "n": [0, 129, 1.5], "max_tokens": [0, -1, "5"],
                "min_tokens": [-1], "presence_penalty": [3], "frequency_penalty": [-3],
                "repetition_penalty": [0], "seed": ["a", 1.5, 2 ** 64], "stop": [5, [""], ["a"] * 17],
                "stop_token_ids": [3, ["a"], [-1], [999999]],
                "logit_bias": [[1], {"a": 1}, {"5": "x"}, {"999999": 1}],
                "priority": [101], "cache_salt": [5, ""], "ignore_eos": [1], "stream": [True],
                "response_format": [{"type": "json_object"}], "prompt_logprobs": [-1, 21],
                "stream_options": [{"include_usage": True}], "no_such": [1, None]}
        of_chat = {**both, "tool_choice": ["required", {"type": "function"}],
                   "logprobs": [1], "top_logprobs": [21, 2], "reasoning_effort": ["lots", 1],
                   "chat_template_kwargs": [{"no_such": 1}, 5], "echo": [True],
                   "parallel_tool_calls": [0], "modalities": [["audio"]], "prompt": ["a"],
                   "functions": [[]], "messages": [[], None, "text", [{"role": "nobody"}], [{
                       "role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]],
                   "tools": [{}, [{}], 5]}
        of_text = {**both, "echo": [1], "suffix": ["x"], "best_of": [2], "logprobs": [21, True],
                   "messages": [[]], "tools": [[]], "max_completion_tokens": [3],
                   "prompt": [None, [], "", 5, [1.5], [-1], [1 << 40], [999999], ["a", 1], [[]]]}
        lines, names = [], {}
        for kind, table in ((chat, of_chat), (completion, of_text)):
            for name, values in table.items():
                for value in values:
                    custom_id = str(len(lines))
                    line = kind(custom_id, "x")
                    line["body"][name] = value
                    names[custom_id] = name
                    lines.append(line)
        records, summary = self.batch(lines)
        self.assertEqual([lines[int(i)]["body"] for i, r in records.items() if not r["error"]], [])
        self.assertEqual((summary["failed"], len(records)), (len(lines), len(lines)))
        for custom_id, name in names.items():
            error = self.body(records[custom_id], 400)["error"]
            self.assertTrue((error["param"] or "").startswith(name)
                            or name in error["message"], (lines[int(custom_id)]["body"], error))

    def test_messages_show_what_is_in_the_line(self):
        shown = {"n": [200, 0], "max_tokens": [-1], "seed": [2 ** 64, -2 ** 63 - 1],
                 "prompt": [[99999999]], "logit_bias": [{"x": 1}], "stop": [7], "top_p": [2.5],
                 "suffix": [{"a": 12345678901234567890}]}
        values = [(name, value) for name, list_ in shown.items() for value in list_]
        lines = [completion(str(i), "x", **{name: value}) if name != "prompt" else
                 completion(str(i), value) for i, (name, value) in enumerate(values)]
        records, _ = self.batch(lines)
        for i, (name, value) in enumerate(values):
            message = self.body(records[str(i)], 400)["error"]["message"]
            value = value[0] if name == "prompt" else value
            self.assertIn("%s: %s, expected" % (name, json.dumps(value)), message)

    def test_long_names_are_told_in_whole_characters(self):
        names = ["a" * i + "\N{LATIN SMALL LETTER E WITH ACUTE}\N{GRINNING FACE}" * 40
                 for i in range(6)]
        records, _ = self.batch([completion(str(i), "x", **{name: 1})
                                 for i, name in enumerate(names)])
        for i, name in enumerate(names):
            param = self.body(records[str(i)], 400)["error"]["param"]
            self.assertGreater(len(param.encode()), 59)
            self.assertTrue(name.startswith(param), param)

    def test_a_body_that_is_a_text_is_not_missing(self):
        records, _ = self.batch([{**chat("text"), "body": "text"}])
        error = self.body(records["text"], 400)["error"]
        self.assertEqual((error["code"], error["param"]), ("invalid_value", "body"))
        self.assertNotIn("missing", error["message"])

    def test_seeds_have_64_bits(self):
        seeds = [0, 2 ** 63 - 1, 2 ** 63, 2 ** 64 - 1, -1, -2 ** 63]
        hot = {"temperature": 2, "max_tokens": 12, "ignore_eos": True}
        records, _ = self.batch([completion(str(s), "Once", seed=s, **hot) for s in seeds])
        texts = {s: self.body(records[str(s)])["choices"][0]["text"] for s in seeds}
        for negative in (-1, -2 ** 63):  # the same bits
            self.assertEqual(texts[negative], texts[negative + 2 ** 64])
        self.assertEqual(len(set(texts.values())), 4)

    def test_null_and_hints_change_nothing(self):
        nulls = {name: None for name in (
            "temperature", "top_p", "n", "stop", "seed", "logit_bias", "logprobs", "top_logprobs",
            "response_format", "stream", "tools", "tool_choice", "max_tokens", "stream_options")}
        hints = {"model": "any", "user": "me", "metadata": {"a": "b"}, "store": True,
                 "service_tier": "auto", "stream": False, "response_format": {"type": "text"},
                 "parallel_tool_calls": True, "tool_choice": "auto", "tools": [], "priority": 3,
                 "cache_salt": "mine", "top_k": -1}
        records, _ = self.batch([chat("plain"), chat("hints", **hints),
                                 chat("nulls", **{**nulls, "temperature": 0})])
        plain = self.body(records["plain"])
        self.assertEqual(plain["model"], NANO)
        for name in ("hints", "nulls"):
            self.assertEqual(self.body(records[name])["choices"], plain["choices"])

    def test_prompts_that_are_too_long(self):
        lines = [completion("long", "word " * 300), chat("good")]
        records, _ = self.batch(lines, "--context", "128")
        self.assertIn("tokens", self.body(records["long"], 400)["error"]["message"])
        self.body(records["good"])

    def test_usage(self):
        here, out = self.put([chat("a")]), self.path("out.jsonl")
        both = ["batch", NANO, "-i", here, "-o", out]
        self.fail_with(2, ["batch"], "no model")
        self.fail_with(2, ["batch", NANO, "-o", out], "--input")
        self.fail_with(2, ["batch", NANO, "-i", here], "--output")
        self.fail_with(2, both + ["--resume", "--overwrite"], "--resume")
        self.fail_with(2, ["batch", NANO, "-i", here, "-o", "-", "--json"], "--json")
        self.fail_with(2, both + ["--page-cache", "8X"], "--page-cache", "8X")
        self.fail_with(2, both + ["--max-num-seqs", "100", "--chunked-prefill-size", "120"],
                       "--max-num-batched-tokens", "164")
        self.fail_with(2, both + ["--draft-tokens", "9"], "--draft-tokens")
        self.fail_with(3, ["batch", NANO, "-i", self.path("none"), "-o", out], "none")
        self.fail_with(3, ["batch", NANO, "-i", self.folder, "-o", out], self.folder)
        self.fail_with(3, ["batch", self.path("none"), "-i", here, "-o", out])
        self.fail_with(1, ["batch", NANO, "-i", here, "-o", self.path("no/out")], "no/out")
        self.fail_with(2, ["batch", NANO, "-i", here, "-o", here, "--overwrite"], "two files")
        with open(here, "a", encoding="utf-8") as stdout:
            result = quern("batch", NANO, "-i", here, "-o", "-", stdout=stdout)
        self.assertEqual(result.status, 2)
        self.assertIn("two files", result.err)
        self.assertFalse(os.path.exists(out))  # no failure left one
        self.write("out.jsonl", "mine\n")
        self.fail_with(2, both, "out.jsonl", "--resume")
        self.fail_with(3, both + ["--resume"], "line 1")
        with open(out, encoding="utf-8") as file:
            self.assertEqual(file.read(), "mine\n")
        for foreign in ("precious", '{"id": "batch_of_mine"}', "\0\0"):  # nor what lacks a break
            self.write("out.jsonl", foreign)
            self.fail_with(3, both + ["--resume"], "line 1")
            with open(out, encoding="utf-8") as file:
                self.assertEqual(file.read(), foreign)
        self.succeed(*both, "--overwrite")
        self.assertEqual(len(self.records()), 1)


class Files(Batch):
    def long_lines(self, n):
        return [completion("r%d" % i, "Once upon a time %d" % i, max_tokens=40, ignore_eos=True)
                for i in range(n)]

    def interrupt(self, number, n_lines, after_bytes):
        here = self.put(self.long_lines(n_lines))
        process = start("batch", NANO, "-q", "-i", here, "-o", self.path("out.jsonl"),
                        "--max-num-seqs", "4", "--json", *self.resume)
        out = self.path("out.jsonl")
        wait_until("for records", lambda: process.poll() is not None or (
            os.path.exists(out) and os.path.getsize(out) > after_bytes))
        process.send_signal(number)
        stdout, stderr = process.communicate()
        self.resume = ["--resume"]
        return process.returncode, stdout.decode(), stderr.decode()

    def check_union(self, lines):
        records = self.records()
        self.assertEqual(sorted(r["custom_id"] for r in records),
                         sorted(line["custom_id"] for line in lines))
        for r in records:
            self.body(r)

    def test_a_killed_run_goes_on(self):
        self.resume = []
        lines = self.long_lines(60)
        for after in (1, 8000, 16000):
            status, _, _ = self.interrupt(signal.SIGKILL, 60, after)
            self.assertEqual(status, -signal.SIGKILL)
        with open(self.path("out.jsonl"), "rb") as file:
            n_there = len(file.read().splitlines())
        self.assertLess(n_there, 60)
        with open(self.path("out.jsonl"), "ab") as file:
            file.write(b'{"id": "batch_req_0-5", "custom_id": "r5')
        _, summary = self.batch(lines, "--resume")
        self.check_union(lines)
        self.assertEqual(summary["requests"] + summary["skipped"], 60)
        self.assertGreaterEqual(summary["skipped"], n_there - 1)
        before = self.records()
        for torn in (b"", b"{", b'{"id": "bat', b'{"id": "\0\0\0'):
            with open(self.path("out.jsonl"), "ab") as file:
                file.write(torn)
            _, summary = self.batch(lines, "--resume")
            self.assertEqual((summary["requests"], summary["skipped"]), (0, 60))
            self.assertEqual(self.records(), before)

    def test_ctrl_c_leaves_a_whole_file(self):
        self.resume = []
        status, out, err = self.interrupt(signal.SIGINT, 60, 3000)
        self.assertEqual(status, 130, err)
        self.assertIn("--resume", err)
        self.assertTrue(json.loads(out)["interrupted"])
        self.assertLess(len(self.records()), 60)
        lines = self.long_lines(60)
        self.batch(lines, "--resume")
        self.check_union(lines)

    def test_failures_of_the_machine_run_again(self):
        lines = [chat("a"), chat("b"), "bad", chat("c", temperature=-1), chat("a")]
        self.batch(lines)
        records = self.records()
        for r in records:
            if r["custom_id"] == "b":
                r["response"] = {"status_code": 500, "request_id": "x", "body": {}}
        self.write("out.jsonl", "".join(json.dumps(r) + "\n" for r in records))
        _, summary = self.batch(lines, "--resume")
        self.assertEqual((summary["requests"], summary["skipped"]), (1, 4))
        after = self.records()
        self.assertEqual([r for r in after if r["custom_id"] != "b"],
                         [r for r in records if r["custom_id"] != "b"])
        (again,) = [r for r in after if r["custom_id"] == "b"]
        self.body(again)

    def test_answers_with_nul_are_gone_on_with(self):
        lines = [completion("nul", "a", max_tokens=3, logit_bias={"188": 100})]  # its byte 0
        records, _ = self.batch(lines)
        self.assertIn("\0", self.body(records["nul"])["choices"][0]["text"])
        _, summary = self.batch(lines, "--resume")
        self.assertEqual((summary["requests"], summary["skipped"]), (0, 1))

    def test_one_writer_at_a_time(self):
        here = self.put(self.long_lines(200))
        process = start("batch", NANO, "-q", "-i", here, "-o", self.path("out.jsonl"))
        wait_until("for records", lambda: os.path.exists(self.path("out.jsonl"))
                   and os.path.getsize(self.path("out.jsonl")) > 0)
        self.fail_with(1, ["batch", NANO, "-i", here, "-o", self.path("out.jsonl"), "--resume"],
                       "another process")
        process.kill()
        process.communicate()

    def test_pipes_get_each_answer_before_the_next_question(self):
        process = start("batch", NANO, "-q", "-i", "-", "-o", "-", stdin=subprocess.PIPE)
        for i in range(3):
            process.stdin.write(json.dumps(chat("p%d" % i)).encode() + b"\n")
            process.stdin.flush()
            record = json.loads(process.stdout.readline())
            self.assertEqual(record["custom_id"], "p%d" % i)
        out, err = process.communicate()
        self.assertEqual((process.returncode, out, err), (0, b"", b""))

    def test_an_empty_file_and_a_last_line_without_break(self):
        result = quern("batch", NANO, "-i", self.write("in", ""), "-o", self.path("none.jsonl"))
        self.assertEqual((result.status, self.records("none.jsonl")), (0, []))
        self.assertIn("0 requests, 0 failed", result.err)
        self.succeed("batch", NANO, "-i", self.write("in", json.dumps(chat("a"))),
                     "-o", self.path("one.jsonl"))
        self.assertEqual(len(self.records("one.jsonl")), 1)

    def test_marks_and_bytes_that_are_not_seen(self):
        lines = ["\ufeff" + json.dumps(chat("first")), "\0\0", "\0", " \t\r", chat("last")]
        self.succeed("batch", NANO, "-i", self.put(lines), "-o", self.path("out.jsonl"))
        records = {r["error"]["line"] if r["error"] else r["custom_id"]: r for r in self.records()}
        self.assertEqual(set(records), {"first", "last", 2, 3})
        for line in (2, 3):
            self.assertEqual(records[line]["error"]["code"], "invalid_json_line")

    def test_answers_do_not_wait_for_the_lines_behind_them(self):
        lines = [chat("good", max_tokens=4), *["x" * (1 << 20)] * 40]
        self.succeed("batch", NANO, "-i", self.put(lines), "-o", self.path("out.jsonl"))
        at = [r["custom_id"] for r in self.records()].index("good")
        self.assertLess(at, 20)

    @unittest.skipIf(IS_SANITIZED, "a sanitizer takes memory of its own")
    def test_long_lines_take_memory_for_a_few(self):
        note = {"metadata": {"note": "x" * (4 << 20)}, "max_tokens": 400, "ignore_eos": True}
        here = self.put([completion(str(i), "Once", **note) for i in range(40)])
        process = start("batch", NANO, "-q", "-i", here, "-o", self.path("out.jsonl"),
                        "--page-cache", "64M")
        self.assertEqual(process.stderr.read(), b"")
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        self.assertEqual((process.returncode, len(self.records())), (0, 40))
        self.assertLess(usage.ru_maxrss, 300 << 10)

    @unittest.skipIf(IS_SANITIZED, "a sanitizer ends the process itself")
    def test_no_memory_ends_it_and_no_request_is_blamed(self):
        process = start("batch", NANO, "-q", "-i", "-", "-o", "-", stdin=subprocess.PIPE)
        process.stdin.write(json.dumps(chat("before")).encode() + b"\n")
        process.stdin.flush()
        self.assertEqual(json.loads(process.stdout.readline())["custom_id"], "before")
        with open("/proc/%d/statm" % process.pid, encoding="ascii") as file:
            size = int(file.read().split()[0]) * resource.getpagesize()
        resource.prlimit(process.pid, resource.RLIMIT_AS, (size + (128 << 20),) * 2)
        body = {"prompt": [0] * (4 << 20)}
        out, err = process.communicate(json.dumps({**completion("large", ""), "body": body})
                                       .encode() + b"\n")
        self.assertEqual((process.returncode, out), (4, b""), err)
        self.assertIn(b"no memory", err)

    def test_a_line_of_many_bytes_is_told(self):
        here = self.put([chat("a"), chat("b", "x" * (65 << 20)), chat("c")])
        self.succeed("batch", NANO, "-i", here, "-o", self.path("out.jsonl"))
        records = {r["custom_id"]: r for r in self.records()}
        self.assertEqual(self.body(records[None], 400)["error"]["code"], "invalid_json_line")
        self.assertEqual(set(records), {"a", "c", None})


if __name__ == "__main__":
    unittest.main()
