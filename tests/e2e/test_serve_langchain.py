#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""LangChain's agent loop works with `quern serve` by base URL alone: the model asks for a tool, the
tool runs, its result goes back, and an answer ends the loop; streamed and not.
"""
import unittest

import serving
from serving import LONG_S, OneServer

serving.use_clients()

from langchain.agents import create_agent  # noqa: E402  (of build/clients)
from langchain_core.messages import AIMessage, ToolMessage  # noqa: E402
from langchain_core.tools import tool  # noqa: E402
from langchain_openai import ChatOpenAI  # noqa: E402

QUESTION = {"messages": [{"role": "user", "content": "What time is it in Sydney?"}]}
called = []


@tool
def get_time(city: str) -> str:
    """Get the local time of a city"""
    called.append(city)
    return "21:45"


class Agent(OneServer):
    def setUp(self):
        called.clear()

    def model(self, **options):
        return ChatOpenAI(base_url=self.server.url + "/v1", api_key="any", model="glm-nano",
                          temperature=0, max_tokens=300, max_retries=0, timeout=LONG_S, **options)

    def check(self, messages):
        self.assertEqual(called, ["Sydney"])
        calls = [call for m in messages if isinstance(m, AIMessage) for call in m.tool_calls]
        self.assertEqual([(call["name"], call["args"]) for call in calls],
                         [("get_time", {"city": "Sydney"})])
        results = [m for m in messages if isinstance(m, ToolMessage)]
        self.assertEqual([(m.content, m.tool_call_id) for m in results], [("21:45", calls[0]["id"])])
        self.assertIsInstance(messages[-1], AIMessage)
        self.assertTrue(messages[-1].content)
        self.assertEqual(messages[-1].response_metadata["finish_reason"], "stop")

    def test_a_loop_with_a_tool_ends_with_an_answer(self):
        agent = create_agent(self.model(), [get_time])
        self.check(agent.invoke(QUESTION)["messages"])

    def test_so_does_a_streamed_one(self):
        agent = create_agent(self.model(streaming=True, stream_usage=True), [get_time])
        messages = []
        for update in agent.stream(QUESTION, stream_mode="updates"):
            for part in update.values():
                messages += part["messages"]
        self.check(messages)
        self.assertGreater(messages[-1].usage_metadata["output_tokens"], 0)

    def test_pieces_of_a_stream_are_the_answer(self):
        model = self.model(seed=3)
        whole = model.invoke("What is 12 + 30?")
        pieces = list(model.stream("What is 12 + 30?"))
        self.assertGreater(len(pieces), 2)
        self.assertEqual("".join(piece.content for piece in pieces), whole.content)


if __name__ == "__main__":
    unittest.main()
