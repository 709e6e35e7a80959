#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The unmodified anthropic package drives `quern serve`: messages, streamed and whole, thinking,
tools, counts, and refusals as its own exceptions; and bodies as Claude Code sends them.
"""
import asyncio
import json
import signal
import unittest

import serving
from serving import Server

serving.use_clients()

import anthropic  # noqa: E402  (of build/clients)

QUESTION = [{"role": "user", "content": "What is 12 + 30?"}]
# One that glm-nano thinks about before it answers.
PUZZLE = [{"role": "user", "content":
           "Ravi reads 6 pages on Monday and 6 more pages on Tuesday than on Monday. How many pages "
           "does Ravi read on the two days?\n\n(A) 15\n(B) 13\n(C) 20\n(D) 18"}]
TIME = [{"role": "user", "content": "What time is it in Sydney?"}]
TOOLS = [{"name": "get_time", "description": "Get the local time of a city",
          "input_schema": {"type": "object", "properties": {"city": {"type": "string"}},
                           "required": ["city"]},
          "cache_control": {"type": "ephemeral"}}]
THINKING = {"type": "enabled", "budget_tokens": 1024}


class Serve(serving.OneServer):
    """One server for all."""

    flags = ("--served-model-name", "nano", "--max-num-seqs", "4", "--max-queued-requests", "4",
             "--max-model-len", "2048")

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.client = anthropic.Anthropic(base_url=cls.server.url, api_key="any", max_retries=0,
                                         timeout=serving.LONG_S)

    @classmethod
    def tearDownClass(cls):
        cls.client.close()
        super().tearDownClass()

    def options(self, messages, options):
        """Greedy where nothing else is said; the package has no name for that any more."""
        extra = {"temperature": 0, **options.pop("extra_body", {})}
        return {"model": "nano", "messages": messages, "max_tokens": 200, "extra_body": extra,
                **options}

    def ask(self, messages, **options):
        return self.client.messages.create(**self.options(messages, options))

    def ask_in_pieces(self, messages, **options):
        """The message that the package makes of a stream, whose events are checked."""
        is_open, n_blocks, types = False, 0, []
        with self.client.messages.stream(**self.options(messages, options)) as stream:
            for event in stream:
                if not event.type.startswith(("message_", "content_block_")):
                    continue  # the package's own
                types.append(event.type)
                if event.type == "content_block_start":
                    self.assertFalse(is_open)
                    self.assertEqual(event.index, n_blocks)
                    is_open, n_blocks = True, n_blocks + 1
                elif event.type.startswith("content_block_"):
                    self.assertTrue(is_open)
                    self.assertEqual(event.index, n_blocks - 1)
                    is_open = event.type != "content_block_stop"
            message = stream.get_final_message()
        self.assertEqual((types[0], types[-2:]),
                         ("message_start", ["message_delta", "message_stop"]))
        self.assertFalse(is_open)
        return message

    def ask_both_ways(self, messages, **options):
        whole = self.ask(messages, **options)
        pieces = self.ask_in_pieces(messages, **options)
        self.assertEqual(self.essence(whole), self.essence(pieces))
        return whole

    @staticmethod
    def essence(message):
        """What two answers to one question have in common: not ids, nor what was in the cache."""
        def plain(block):
            return {name: value for name, value in block.to_dict().items() if name != "id"}
        return ([plain(block) for block in message.content], message.stop_reason,
                message.stop_sequence, message.role, message.model, message.usage.output_tokens,
                message.usage.input_tokens + message.usage.cache_read_input_tokens)


class Messages(Serve):
    def test_a_text(self):
        message = self.ask_both_ways(QUESTION)
        self.assertEqual([block.type for block in message.content], ["text"])
        self.assertIn("42", message.content[0].text)
        self.assertEqual((message.type, message.role, message.model, message.stop_reason),
                         ("message", "assistant", "nano", "end_turn"))
        self.assertTrue(message.id.startswith("msg_"))
        self.assertGreater(message.usage.output_tokens, 0)

    def test_thinking_is_a_block_before_the_text(self):
        message = self.ask_both_ways(PUZZLE, thinking=THINKING)
        self.assertEqual([block.type for block in message.content], ["thinking", "text"])
        self.assertTrue(message.content[0].thinking and message.content[0].signature)
        n_thinking = message.usage.output_tokens_details.thinking_tokens
        self.assertTrue(0 < n_thinking < message.usage.output_tokens)
        again = self.ask(PUZZLE + [message.to_param(), {"role": "user", "content": "Sure?"}],
                         thinking=THINKING)
        self.assertTrue(again.content)

    def test_thinking_that_is_omitted_is_in_the_signature(self):
        shown = self.ask(PUZZLE, thinking=THINKING)
        message = self.ask_both_ways(PUZZLE, thinking={"type": "adaptive", "display": "omitted"})
        self.assertEqual(message.content[0].thinking, "")
        self.assertIn(shown.content[0].thinking, message.content[0].signature)
        self.assertEqual(message.content[1:], shown.content[1:])

    def test_limits_and_stop_sequences(self):
        message = self.ask_both_ways(QUESTION, max_tokens=3)
        self.assertEqual((message.stop_reason, message.usage.output_tokens), ("max_tokens", 3))
        message = self.ask_both_ways(QUESTION, stop_sequences=["nowhere", "42"])
        self.assertEqual((message.stop_reason, message.stop_sequence), ("stop_sequence", "42"))
        self.assertNotIn("42", message.content[0].text if message.content else "")

    def test_an_answer_may_fill_the_context(self):
        message = self.ask(QUESTION, max_tokens=100000, extra_body={"ignore_eos": True})
        usage = message.usage
        self.assertEqual(message.stop_reason, "model_context_window_exceeded")
        self.assertGreater(usage.input_tokens + usage.cache_read_input_tokens
                           + usage.output_tokens, 2000)

    def test_raw_events_of_the_asynchronous_client(self):
        async def ask():
            async with anthropic.AsyncAnthropic(base_url=self.server.url, api_key="any",
                                                max_retries=0) as client:
                stream = await client.messages.create(**self.options(QUESTION, {}), stream=True)
                return [event async for event in stream]
        events = asyncio.run(ask())
        self.assertIn("42", "".join(event.delta.text for event in events
                                    if event.type == "content_block_delta"))
        self.assertEqual(events[0].message.usage.output_tokens, 0)
        self.assertEqual(events[-2].delta.stop_reason, "end_turn")

    def test_the_answer_goes_on_behind_the_assistants_text(self):
        message = self.ask_both_ways(QUESTION + [{"role": "assistant", "content": "12 + 30 ="}])
        self.assertIn("42", message.content[0].text)
        self.assertFalse(message.content[0].text.startswith("12"))

    def test_sampling_by_seed(self):
        texts = {self.ask(PUZZLE, extra_body={"temperature": 1, "seed": 5}).content[0].text
                 for _ in range(3)}
        self.assertEqual(len(texts), 1)

    def test_what_is_in_the_cache_is_counted_apart(self):
        messages = [{"role": "user", "content": "Count: %s" % " ".join(map(str, range(300)))}]
        first = self.ask(messages, max_tokens=1).usage
        second = self.ask(messages, max_tokens=1).usage
        self.assertEqual(first.cache_read_input_tokens, 0)
        self.assertGreater(second.cache_read_input_tokens, 0)
        self.assertEqual(second.input_tokens + second.cache_read_input_tokens, first.input_tokens)

    def test_count_tokens_counts_the_prompt(self):
        for options in ({}, {"system": "Be brief."}, {"tools": TOOLS}, {"thinking": THINKING}):
            with self.subTest(options):
                count = self.client.messages.count_tokens(model="nano", messages=PUZZLE, **options)
                usage = self.ask(PUZZLE, max_tokens=1, **options).usage
                self.assertEqual(count.input_tokens,
                                 usage.input_tokens + usage.cache_read_input_tokens)
        count = self.client.beta.messages.count_tokens(model="nano", messages=PUZZLE)
        self.assertGreater(count.input_tokens, 0)


class Tools(Serve):
    def test_a_call_and_its_result(self):
        message = self.ask_both_ways(TIME, tools=TOOLS)
        self.assertEqual(message.stop_reason, "tool_use")
        call = message.content[-1]
        self.assertEqual((call.type, call.name, call.input), ("tool_use", "get_time",
                                                              {"city": "Sydney"}))
        self.assertTrue(call.id.startswith("toolu_"))
        result = {"type": "tool_result", "tool_use_id": call.id,
                  "content": [{"type": "text", "text": "{\"time\": \"14:05\"}"}]}
        answer = self.ask_both_ways(
            TIME + [message.to_param(), {"role": "user", "content": [result]}], tools=TOOLS)
        self.assertEqual(answer.stop_reason, "end_turn")
        self.assertIn("14:05", answer.content[-1].text)

    def test_a_call_that_is_cut_off_is_the_same_whole_and_streamed(self):
        seen = set()
        for n in range(4, 24):
            message = self.ask_both_ways(TIME, tools=TOOLS, max_tokens=n)
            seen.update((message.stop_reason, str(block.input)) for block in message.content
                        if block.type == "tool_use")
        self.assertIn(("max_tokens", "{}"), seen)
        self.assertIn(("tool_use", "{'city': 'Sydney'}"), seen)

    def test_without_tools_there_is_no_call(self):
        message = self.ask(TIME, tools=TOOLS, tool_choice={"type": "none"})
        self.assertNotIn("tool_use", [block.type for block in message.content])
        message = self.ask(TIME, tools=TOOLS,
                           tool_choice={"type": "auto", "disable_parallel_tool_use": True})
        self.assertEqual([block.type for block in message.content].count("tool_use"), 1)

    def test_the_beta_interface(self):
        message = self.client.beta.messages.create(
            **self.options(TIME, {"tools": TOOLS}),
            betas=["fine-grained-tool-streaming-2025-05-14", "interleaved-thinking-2025-05-14"])
        self.assertEqual(message.stop_reason, "tool_use")


class ClaudeCode(Serve):
    """Bodies and headers as Claude Code has them, but shorter."""

    def body(self, number, messages):
        return {
            "model": "nano", "max_tokens": 100, "stream": True, "messages": messages,
            "system": [{"type": "text", "text": "x-anthropic-billing-header: cc_version=2.1.88.a%d; "
                        "cc_entrypoint=cli; cch=%05x;" % (number, number * 7919)},
                       {"type": "text", "text": "You are Claude Code, a command line.",
                        "cache_control": {"type": "ephemeral"}},
                       {"type": "text", "text": "\nBe brief. " * 50,
                        "cache_control": {"type": "ephemeral"}}],
            "tools": [{**TOOLS[0], "eager_input_streaming": True}],
            "thinking": {"type": "adaptive"}, "output_config": {"effort": "medium"},
            "context_management": {"edits": [{"type": "clear_thinking_20251015", "keep": "all"}]},
            "metadata": {"user_id": "{\"device_id\": \"d\"}"}}

    def post(self, body):
        connection = self.server.connect()
        try:
            connection.request(
                "POST", "/v1/messages?beta=true", json.dumps(body),
                {"Content-Type": "application/json", "x-api-key": "any",
                 "anthropic-version": "2023-06-01", "x-app": "cli",
                 "anthropic-beta": "claude-code-20250219,interleaved-thinking-2025-05-14"})
            response = connection.getresponse()
            data = response.read().decode()
            self.assertEqual(response.status, 200, data)
            return response, [json.loads(line[6:]) for line in data.split("\n")
                              if line.startswith("data: ")]
        finally:
            connection.close()

    def test_another_billing_line_is_the_same_prompt(self):
        messages = [{"role": "user", "content": [
            {"type": "text", "text": "<system-reminder>Hello.</system-reminder>"},
            {"type": "text", "text": "Hi", "cache_control": {"type": "ephemeral"}}]}]
        usages = []
        for number in (1, 2):
            response, events = self.post(self.body(number, messages))
            self.assertTrue(response.getheader("content-type").startswith("text/event-stream"))
            self.assertEqual(events[0]["type"], "message_start")
            self.assertEqual(events[-1], {"type": "message_stop"})
            usages.append(events[-2]["usage"])
        self.assertGreater(usages[1]["cache_read_input_tokens"], 200)
        ignored = " ".join(value for _, value in response.getheaders())
        for name in ("metadata", "cache_control", "eager_input_streaming"):
            self.assertIn(name, ignored)


class Refusals(Serve):
    def test_what_is_not_built_or_wrong_is_a_bad_request_that_names_it(self):
        picture = {"type": "image", "source": {"type": "base64", "media_type": "image/png",
                                               "data": "AA=="}}
        search = {"type": "web_search_20250305", "name": "web_search"}
        for name, options in {
                "tool_choice.type": {"tools": TOOLS, "tool_choice": {"type": "any"}},
                "tools[0].type": {"tools": [search]},
                "messages[0].content[0].type": {"messages": [{"role": "user", "content": [picture]}]},
                "temperature": {"extra_body": {"temperature": 3}},
                "max_tokens": {"max_tokens": 0},
                "no_such_thing": {"extra_body": {"no_such_thing": 1}},
                "messages": {"messages": []}}.items():
            for stream in (False, True):
                with self.subTest(name):
                    with self.assertRaises(anthropic.BadRequestError) as caught:
                        self.ask(**{"messages": QUESTION, "stream": stream, **options})
                    error = caught.exception.body["error"]
                    self.assertEqual(error["type"], "invalid_request_error")
                    self.assertIn(name, error["message"])
        with self.assertRaises(anthropic.BadRequestError):
            self.ask([{"role": "user", "content": "a word " * 4000}])
        with self.assertRaises(anthropic.BadRequestError):
            self.client.messages.count_tokens(model="nano", messages=[])

    def test_another_model_is_not_found(self):
        self.assertEqual([model.id for model in self.client.models.list()], ["nano"])
        self.assertEqual(self.client.models.retrieve("nano").type, "model")
        self.assertRaises(anthropic.NotFoundError, self.client.models.retrieve, "claude")
        with self.assertRaises(anthropic.NotFoundError) as caught:
            self.ask(QUESTION, model="claude")
        self.assertEqual(caught.exception.body["error"]["type"], "not_found_error")

    def test_a_full_queue_is_a_rate_limit(self):
        streams = []
        try:
            with self.assertRaises(anthropic.RateLimitError) as caught:
                for _ in range(100):  # 4 run and 4 wait
                    streams.append(self.client.messages.create(
                        model="nano", messages=PUZZLE, max_tokens=1900, stream=True,
                        extra_body={"ignore_eos": True}))
            self.assertEqual(caught.exception.body["error"]["type"], "rate_limit_error")
            self.assertGreaterEqual(int(caught.exception.response.headers["retry-after"]), 1)
        finally:
            for stream in streams:
                stream.close()


class Doors(unittest.TestCase):
    """Servers that are not open to all, or not any more."""

    def test_keys_in_either_header(self):
        with Server("--api-key", "a-key-for-tests", "--served-model-name", "nano") as server:
            ask = {"model": "nano", "max_tokens": 1, "messages": QUESTION}
            for options in ({"api_key": "a-key-for-tests"}, {"auth_token": "a-key-for-tests"}):
                with anthropic.Anthropic(base_url=server.url, max_retries=0, **options) as client:
                    self.assertEqual(client.messages.create(**ask).role, "assistant")
            with anthropic.Anthropic(base_url=server.url, max_retries=0, api_key="wrong") as client:
                with self.assertRaises(anthropic.AuthenticationError) as caught:
                    client.messages.create(**ask)
                self.assertEqual(caught.exception.body["error"]["type"], "authentication_error")

    def test_a_server_that_drains_is_an_internal_error(self):
        with Server("--served-model-name", "nano") as server, \
                anthropic.Anthropic(base_url=server.url, api_key="any", max_retries=0) as client:
            ask = {"model": "nano", "messages": PUZZLE, "max_tokens": 1500,
                   "extra_body": {"ignore_eos": True}}
            with client.messages.stream(**ask) as stream:
                next(iter(stream))
                server.process.send_signal(signal.SIGTERM)
                server.wait_for("/ready", 503)
                with self.assertRaises(anthropic.InternalServerError) as caught:
                    client.messages.create(**ask)
                self.assertEqual(caught.exception.status_code, 503)
                self.assertEqual(caught.exception.body["error"]["type"], "overloaded_error")
                self.assertEqual(stream.get_final_message().stop_reason, "max_tokens")
            # Leaving would send a second SIGTERM, which may kill it on its way out.
            self.assertEqual(server.process.wait(serving.LONG_S), 0)

    def test_an_answer_that_is_cut_off_ends_with_an_error(self):
        server = Server("--served-model-name", "nano")
        try:
            with anthropic.Anthropic(base_url=server.url, api_key="any", max_retries=0) as client, \
                    client.messages.stream(model="nano", messages=PUZZLE, max_tokens=1500,
                                           extra_body={"ignore_eos": True}) as stream:
                next(iter(stream))
                server.process.send_signal(signal.SIGTERM)
                server.wait_for("/ready", 503)
                server.process.send_signal(signal.SIGTERM)
                with self.assertRaises(anthropic.APIStatusError) as caught:
                    stream.until_done()
                self.assertEqual(caught.exception.body["error"]["type"], "overloaded_error")
            self.assertNotEqual(server.process.wait(serving.LONG_S), 0)
        finally:
            server.kill()


if __name__ == "__main__":
    unittest.main()
