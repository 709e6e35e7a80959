#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The unmodified openai package drives `quern serve`: every endpoint that it knows, streamed and
whole, tools, thinking, and refusals as its own exceptions.  Then curl, for what people type.
"""
import json
import os
import shutil
import subprocess
import tempfile
import threading
import unittest

import serving
from serving import Server, wait_until

serving.use_clients()

import openai  # noqa: E402  (of build/clients)

KEY = "a-key-for-tests"
QUESTION = [{"role": "user", "content": "What is 12 + 30?"}]
# One that glm-nano thinks about before it answers.
PUZZLE = [{"role": "user", "content":
           "Ravi reads 6 pages on Monday and 6 more pages on Tuesday than on Monday. How many pages "
           "does Ravi read on the two days?\n\n(A) 15\n(B) 13\n(C) 20\n(D) 18"}]
TIME = [{"role": "user", "content": "What time is it in Sydney?"}]
TOOLS = [{"type": "function", "function": {
    "name": "get_time", "description": "Get the local time of a city",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}},
                   "required": ["city"]}}}]
STORY = "Once upon a time"
NO_THINKING = {"chat_template_kwargs": {"enable_thinking": False}}


class Gathered:
    """The chunks of a stream of chat, put together again; what every one promises is checked."""

    def __init__(self, stream):
        self.content, self.reasoning, self.calls, self.finish = {}, {}, {}, {}
        self.usage, self.n_chunks, self.logprobs = None, 0, {}
        ids = set()
        for chunk in stream:
            self.n_chunks += 1
            ids.add(chunk.id)
            assert chunk.object == "chat.completion.chunk", chunk
            if chunk.usage is not None:
                assert self.usage is None and chunk.choices == [], chunk
                self.usage = chunk.usage
            for choice in chunk.choices:
                self.take(choice)
        assert len(ids) == 1, ids

    def take(self, choice):
        i, delta = choice.index, choice.delta
        assert i not in self.finish, "something came after a finish_reason: %s" % choice
        self.content[i] = self.content.get(i, "") + (delta.content or "")
        reasoning = getattr(delta, "reasoning_content", None)
        assert not (reasoning and self.content[i]), "thinking after the answer began"
        self.reasoning[i] = self.reasoning.get(i, "") + (reasoning or "")
        for call in delta.tool_calls or []:
            calls = self.calls.setdefault(i, {})
            if call.id is not None:
                assert call.index not in calls and call.function.name, call
                calls[call.index] = [call.id, call.function.name, ""]
            calls[call.index][2] += call.function.arguments or ""
        if choice.logprobs is not None:
            self.logprobs.setdefault(i, []).extend(choice.logprobs.content or [])
        if choice.finish_reason is not None:
            self.finish[i] = choice.finish_reason

    def call_list(self, i=0):
        return [(name, json.loads(arguments))
                for _, (_, name, arguments) in sorted(self.calls.get(i, {}).items())]


class Serve(serving.OneServer):
    """One server for all."""

    flags = ("--served-model-name", "nano", "--max-num-seqs", "4", "--max-queued-requests", "4",
             "--max-model-len", "2048")

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.client = openai.OpenAI(base_url=cls.server.url + "/v1", api_key="any", max_retries=0,
                                   timeout=serving.LONG_S)

    @classmethod
    def tearDownClass(cls):
        cls.client.close()
        super().tearDownClass()

    def chat(self, messages, **options):
        return self.client.chat.completions.create(
            **{"model": "nano", "messages": messages, "temperature": 0, "max_tokens": 200,
               **options})

    def complete(self, prompt, **options):
        return self.client.completions.create(
            **{"model": "nano", "prompt": prompt, "temperature": 0, "max_tokens": 12, **options})


class Chat(Serve):
    def test_an_answer_has_all_its_parts(self):
        answer = self.chat(PUZZLE, reasoning_effort="high")
        choice = answer.choices[0]
        self.assertEqual((answer.object, answer.model, choice.finish_reason),
                         ("chat.completion", "nano", "stop"))
        self.assertTrue(choice.message.content)
        self.assertTrue(choice.message.reasoning_content)
        usage = answer.usage
        self.assertEqual(usage.total_tokens, usage.prompt_tokens + usage.completion_tokens)
        self.assertGreater(usage.completion_tokens_details.reasoning_tokens, 0)
        self.assertLess(usage.completion_tokens_details.reasoning_tokens, usage.completion_tokens)

    def test_without_thinking_there_is_none(self):
        for extra in (NO_THINKING, {"thinking": {"type": "disabled"}}):
            answer = self.chat(QUESTION, extra_body=extra)
            self.assertIn("42", answer.choices[0].message.content)
            self.assertFalse(answer.choices[0].message.reasoning_content)
            self.assertEqual(answer.usage.completion_tokens_details.reasoning_tokens, 0)

    def test_a_stream_is_the_whole_answer(self):
        for options in ({}, {"temperature": 1.0, "seed": 7}, {"extra_body": NO_THINKING},
                        {"temperature": 1.0, "seed": 11, "n": 3}):
            with self.subTest(options=options):
                whole = self.chat(PUZZLE, **options)
                streamed = Gathered(self.chat(PUZZLE, stream=True,
                                              stream_options={"include_usage": True}, **options))
                for choice in whole.choices:
                    i = choice.index
                    self.assertEqual(streamed.content[i], choice.message.content or "")
                    self.assertEqual(streamed.reasoning[i], choice.message.reasoning_content or "")
                    self.assertEqual(streamed.finish[i], choice.finish_reason)
                self.assertEqual(len(streamed.finish), options.get("n", 1))
                self.assertEqual(streamed.usage.completion_tokens, whole.usage.completion_tokens)

    def test_usage_comes_only_where_it_was_asked_for(self):
        self.assertIsNone(Gathered(self.chat(QUESTION, stream=True)).usage)

    def test_limits_end_with_length(self):
        for name in ("max_tokens", "max_completion_tokens"):
            options = {"max_tokens": openai.omit, name: 3}
            answer = self.chat(PUZZLE, **options)
            self.assertEqual((answer.choices[0].finish_reason, answer.usage.completion_tokens),
                             ("length", 3))
            self.assertEqual(Gathered(self.chat(PUZZLE, stream=True, **options)).finish[0], "length")

    def test_a_stop_text_is_not_part_of_the_answer(self):
        whole = self.chat(QUESTION, extra_body=NO_THINKING).choices[0].message.content
        stop = whole[len(whole) // 2:][:4]
        for stream in (False, True):
            answer = self.chat(QUESTION, extra_body=NO_THINKING, stop=[stop], stream=stream)
            if stream:
                streamed = Gathered(answer)
                seen = streamed.content[0], streamed.finish[0]
            else:
                seen = answer.choices[0].message.content, answer.choices[0].finish_reason
            self.assertEqual(seen, (whole[:whole.index(stop)], "stop"))

    def test_logprobs_of_each_token(self):
        options = {"logprobs": True, "top_logprobs": 3, "extra_body": NO_THINKING}
        answer = self.chat(QUESTION, **options)
        entries = answer.choices[0].logprobs.content
        self.assertEqual(len(entries), answer.usage.completion_tokens)
        for entry in entries:
            self.assertEqual(len(entry.top_logprobs), 3)
            self.assertAlmostEqual(entry.logprob, entry.top_logprobs[0].logprob, 5)
            self.assertLessEqual(entry.logprob, 0)
        streamed = Gathered(self.chat(QUESTION, stream=True, **options))
        self.assertEqual([(e.token, e.logprob) for e in streamed.logprobs[0]],
                         [(e.token, e.logprob) for e in entries])

    def test_a_tool_is_called_and_its_result_taken(self):
        whole = self.chat(TIME, tools=TOOLS)
        message = whole.choices[0].message
        self.assertEqual(whole.choices[0].finish_reason, "tool_calls")
        self.assertEqual([(c.type, c.function.name, json.loads(c.function.arguments))
                          for c in message.tool_calls],
                         [("function", "get_time", {"city": "Sydney"})])
        streamed = Gathered(self.chat(TIME, tools=TOOLS, stream=True))
        self.assertEqual(streamed.call_list(), [("get_time", {"city": "Sydney"})])
        self.assertEqual(streamed.finish[0], "tool_calls")
        self.assertNotIn("<tool_call>", streamed.content[0])
        turns = TIME + [message.model_dump(exclude_none=True),
                        {"role": "tool", "tool_call_id": message.tool_calls[0].id,
                         "content": "21:45"}]
        answer = self.chat(turns, tools=TOOLS)
        self.assertEqual(answer.choices[0].finish_reason, "stop")
        self.assertTrue(answer.choices[0].message.content)

    def test_a_call_that_is_cut_off_is_the_same_whole_and_streamed(self):
        seen = set()
        for n in range(4, 24):
            whole = self.chat(TIME, tools=TOOLS, max_tokens=n).choices[0]
            streamed = Gathered(self.chat(TIME, tools=TOOLS, max_tokens=n, stream=True))
            calls = [(c.function.name, json.loads(c.function.arguments))
                     for c in whole.message.tool_calls or []]
            self.assertEqual((calls, whole.message.content or "", whole.finish_reason),
                             (streamed.call_list(), streamed.content[0], streamed.finish[0]), n)
            seen.update((whole.finish_reason, str(arguments)) for _, arguments in calls)
        self.assertIn(("length", "{}"), seen)
        self.assertIn(("tool_calls", "{'city': 'Sydney'}"), seen)

    def test_the_package_itself_puts_a_stream_of_calls_together(self):
        with self.client.chat.completions.stream(model="nano", messages=TIME, tools=TOOLS,
                                                 temperature=0, max_tokens=200) as stream:
            done = [event for event in stream
                    if event.type == "tool_calls.function.arguments.done"]
            final = stream.get_final_completion()
        self.assertEqual([(event.name, json.loads(event.arguments)) for event in done],
                         [("get_time", {"city": "Sydney"})])
        self.assertEqual(final.choices[0].finish_reason, "tool_calls")
        message = final.choices[0].message  # which has members of the package's own
        for said in (message, message.model_dump(), {**message.model_dump(), "parsed": {"a": 1}}):
            answer = self.chat(TIME + [said, {"role": "tool", "content": "21:45",
                                              "tool_call_id": message.tool_calls[0].id}],
                               tools=TOOLS)
            self.assertTrue(answer.choices[0].message.content)

    def test_tool_choice_none_calls_none(self):
        answer = self.chat(TIME, tools=TOOLS, tool_choice="none")
        self.assertFalse(answer.choices[0].message.tool_calls)
        self.assertEqual(answer.choices[0].finish_reason, "stop")

    def test_an_answer_goes_on_where_the_last_message_ends(self):
        answer = self.chat(QUESTION + [{"role": "assistant", "content": "The answer is 4"}],
                           extra_body={"continue_final_message": True,
                                       "add_generation_prompt": False, **NO_THINKING})
        self.assertTrue(answer.choices[0].message.content.startswith("2"),
                        answer.choices[0].message.content)

    def test_a_conversation_is_found_in_the_cache(self):
        text = "Remember: " + ", ".join("item %d is %d" % (i, i * i) for i in range(40)) + ". "
        turns = [{"role": "user", "content": text + "What is 2 + 3?"}]
        first = self.chat(turns, extra_body={"cache_salt": "mine", **NO_THINKING})
        again = self.chat(turns, extra_body={"cache_salt": "mine", **NO_THINKING})
        other = self.chat(turns, extra_body={"cache_salt": "other", **NO_THINKING})
        cached = [a.usage.prompt_tokens_details.cached_tokens for a in (first, again, other)]
        self.assertEqual((cached[0], cached[2]), (0, 0))
        self.assertGreater(cached[1], first.usage.prompt_tokens // 2)
        self.assertEqual(first.choices[0].message.content, again.choices[0].message.content)

    def test_hints_without_effect_are_named(self):
        raw = self.client.chat.completions.with_raw_response.create(
            model="nano", messages=QUESTION, max_tokens=2, user="someone", store=True,
            metadata={"a": "b"})
        named = ",".join(value for name, value in raw.headers.items()
                         if "ignored" in name.lower())
        for name in ("store", "metadata"):
            self.assertIn(name, named, dict(raw.headers))

    def test_a_stream_that_is_closed_ends_its_request(self):
        stream = self.chat(PUZZLE, stream=True, max_tokens=1500,
                           extra_body={"ignore_eos": True})
        next(iter(stream))
        stream.close()
        wait_until("nothing runs",
                   lambda: self.server.metrics()["quern_requests_running"] == 0)


class Completions(Serve):
    def test_prompts_as_text_and_ids_one_and_many(self):
        ids = self.server.post("/tokenize", {"prompt": STORY})[2]["tokens"]
        texts = [self.complete(prompt).choices[0].text for prompt in (STORY, ids)]
        self.assertEqual(texts[0], texts[1])
        for prompts in ([STORY, "The river"], [ids, ids]):
            many = self.complete(prompts, n=2)
            self.assertEqual([choice.index for choice in many.choices], [0, 1, 2, 3])
            self.assertEqual([many.choices[i].text for i in (0, 1)], texts)
        self.assertEqual(self.server.post("/detokenize", {"tokens": ids})[2]["prompt"], STORY)

    def test_a_stream_is_the_whole_answer(self):
        for options in ({}, {"temperature": 1.0, "seed": 3, "n": 2}, {"echo": True},
                        {"logprobs": 2}):
            with self.subTest(options=options):
                whole = self.complete(STORY, **options)
                texts, finish, tokens, usage = {}, {}, {}, None
                for chunk in self.complete(STORY, stream=True,
                                           stream_options={"include_usage": True}, **options):
                    usage = chunk.usage or usage
                    for choice in chunk.choices:
                        texts[choice.index] = texts.get(choice.index, "") + choice.text
                        if choice.finish_reason:
                            finish[choice.index] = choice.finish_reason
                        if choice.logprobs:
                            tokens.setdefault(choice.index, []).extend(choice.logprobs.tokens)
                for choice in whole.choices:
                    self.assertEqual(texts[choice.index], choice.text)
                    self.assertEqual(finish[choice.index], choice.finish_reason)
                    if choice.logprobs:
                        self.assertEqual(tokens[choice.index], choice.logprobs.tokens)
                self.assertEqual(usage.completion_tokens, whole.usage.completion_tokens)

    def test_echo_and_logprobs(self):
        answer = self.complete(STORY, echo=True, logprobs=1, max_tokens=2)
        choice = answer.choices[0]
        self.assertTrue(choice.text.startswith(STORY))
        self.assertEqual("".join(choice.logprobs.tokens), choice.text)
        self.assertIsNone(choice.logprobs.token_logprobs[0])
        self.assertEqual(len(choice.logprobs.tokens),
                         answer.usage.prompt_tokens + answer.usage.completion_tokens)

    def test_ends(self):
        whole = self.complete(STORY, max_tokens=30).choices[0].text
        stopped = self.complete(STORY, max_tokens=30, stop=whole[5:9]).choices[0]
        self.assertEqual((stopped.text, stopped.finish_reason), (whole[:whole.index(whole[5:9])], "stop"))
        long = self.complete(STORY, max_tokens=40, extra_body={"ignore_eos": True})
        self.assertEqual((long.choices[0].finish_reason, long.usage.completion_tokens), ("length", 40))


class Refusals(Serve):
    def test_models(self):
        self.assertEqual([model.id for model in self.client.models.list()], ["nano"])
        self.assertEqual(self.client.models.retrieve("nano").id, "nano")
        self.assertRaises(openai.NotFoundError, self.client.models.retrieve, "other")

    def test_what_is_not_built_or_wrong_is_a_bad_request_that_names_it(self):
        for name, options in {
                "response_format": {"response_format": {"type": "json_object"}},
                "tool_choice": {"tools": TOOLS, "tool_choice": "required"},
                "temperature": {"temperature": 101},
                "top_logprobs": {"logprobs": True, "top_logprobs": 21},
                "no_such_thing": {"extra_body": {"no_such_thing": 1}},
                "messages": {"messages": []}}.items():
            for stream in (False, True):
                with self.subTest(name), self.assertRaises(openai.BadRequestError) as caught:
                    self.chat(**{"messages": QUESTION, "stream": stream, **options})
                self.assertIn(name, str(caught.exception))
                self.assertIn(name, caught.exception.param)
        picture = [{"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}}]
        with self.assertRaisesRegex(openai.BadRequestError, "image_url"):
            self.chat([{"role": "user", "content": picture}])
        with self.assertRaisesRegex(openai.BadRequestError, "n: 9, expected at most 8"):
            self.chat(QUESTION, n=9)  # 4 run and 4 wait: a rate limit would never end
        with self.assertRaises(openai.BadRequestError) as caught:
            self.complete("a word " * 4000)
        self.assertEqual(caught.exception.code, "context_length_exceeded")

    def test_another_model_or_path_is_not_found(self):
        with self.assertRaises(openai.NotFoundError) as caught:
            self.chat(QUESTION, model="gpt-4")
        self.assertEqual(caught.exception.code, "model_not_found")
        self.assertRaises(openai.NotFoundError, self.client.embeddings.create, model="nano", input="a")

    def test_a_full_queue_is_a_rate_limit(self):
        refused, lock = [], threading.Lock()

        def ask():
            try:
                for _ in self.chat(PUZZLE, stream=True, max_tokens=1000,
                                   extra_body={"ignore_eos": True}):
                    pass
            except openai.APIStatusError as error:
                with lock:
                    refused.append(error)
        threads = [threading.Thread(target=ask) for _ in range(24)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertTrue(refused)
        self.assertLessEqual(len(refused), 24 - 4)
        for error in refused:
            self.assertIn(error.status_code, (429, 503))
            self.assertGreaterEqual(int(error.response.headers["retry-after"]), 1)
            self.assertIsInstance(error, openai.RateLimitError if error.status_code == 429
                                  else openai.InternalServerError)


class Keys(unittest.TestCase):
    def test_keys(self):
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, "keys")
            with open(path, "w", encoding="ascii") as file:
                file.write("first-of-file\n\nsecond-of-file\n")
            with Server("--api-key", KEY, "--api-key-file", path) as server:
                for key in (KEY, "first-of-file", "second-of-file"):
                    with openai.OpenAI(base_url=server.url + "/v1", api_key=key) as client:
                        self.assertEqual(len(client.models.list().data), 1)
                for key in ("wrong", KEY[:-1], KEY + "x"):
                    with openai.OpenAI(base_url=server.url + "/v1", api_key=key) as client:
                        self.assertRaises(openai.AuthenticationError, client.models.list)
                self.assertEqual(server.get("/health")[0], 200)
                self.assertEqual(server.get("/v1/models")[0], 401)
                for key in (KEY, "first-of-file"):
                    self.assertNotIn(key, server.log)


@unittest.skipIf(shutil.which("curl") is None, "curl is missing")
class Curl(Serve):
    def curl(self, path, *arguments):
        done = subprocess.run(["curl", "-sS", "-N", "-w", "\n%{http_code}", self.server.url + path,
                               *arguments], capture_output=True, check=True, text=True,
                              timeout=serving.LONG_S)
        body, _, status = done.stdout.rpartition("\n")
        return int(status), body

    def post(self, path, body):
        return self.curl(path, "-H", "Content-Type: application/json", "-d", json.dumps(body))

    def test_what_people_type(self):
        status, body = self.post("/v1/chat/completions", {"model": "nano", "messages": QUESTION,
                                                          "temperature": 0})
        self.assertEqual(status, 200)
        self.assertIn("42", json.loads(body)["choices"][0]["message"]["content"])
        status, body = self.post("/v1/completions", {"model": "nano", "prompt": STORY,
                                                     "max_tokens": 3, "stream": True})
        self.assertEqual(status, 200)
        self.assertTrue(body.startswith("data: {"), body)
        self.assertTrue(body.endswith("data: [DONE]\n\n"), body)

    def test_the_other_pages(self):
        for path in ("/health", "/ready", "/metrics", "/version", "/server_info", "/v1/models"):
            with self.subTest(path):
                self.assertEqual(self.curl(path)[0], 200)
        info = json.loads(self.curl("/server_info")[1])
        self.assertIn("kernels", json.dumps(info))
        for path in ("/flush_cache", "/reset_prefix_cache"):
            self.assertEqual(self.curl(path, "-X", "POST")[0], 200)
        self.assertEqual(self.curl("/nowhere")[0], 404)
        self.assertEqual(self.curl("/v1/completions")[0], 405)
        self.assertEqual(self.post("/v1/completions", [])[0], 400)
        self.assertEqual(self.curl("/v1/completions", "-d", "{")[0], 400)


if __name__ == "__main__":
    unittest.main()
