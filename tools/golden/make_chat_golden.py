#!/usr/bin/env python3
"""Makes tests/golden/chat/nano.json: conversations, and the ids that Hugging Face makes of them.

    python3 -m venv venv && venv/bin/pip install jinja2==3.1.6 tokenizers==0.23.3
    venv/bin/python tools/golden/make_chat_golden.py chat_template.jinja

The template is the one published with GLM-5.2 (revision b4734de4); it is checked and not kept here.  It
is rendered as transformers' apply_chat_template() does, and the whole text goes through glm-nano's
tokenizer.  Left out is what ours means to do otherwise: names of control tokens in what people write,
and null contents, for which the template writes "None"."""
import copy, hashlib, json, pathlib, random, sys

import jinja2
from jinja2.ext import loopcontrols
from jinja2.sandbox import ImmutableSandboxedEnvironment
from tokenizers import Tokenizer

ROOT = pathlib.Path(__file__).resolve().parents[2]
OUT = ROOT / "tests/golden/chat/nano.json"
NANO = ROOT / "models/glm-nano/tokenizer.json"
SHA256 = "172dc74a35e1752df75ecfb2b2cf9326d2852bb1379868ebeec9571654489679"

TEXTS = ["Hi", "", " ", "What is 12 + 30?", "  two  spaces  ", "line\nline\n\n", "\n\nfirst", "tab\tand\r\nreturn", "東京の天気は？",
         "naïve café 😀👩‍💻", "if (a < b) {\n    return a[0];\n}", "{\"a\": [1, 2]}", "\"quoted\" \\ back\\slash", "x\u2028y\u00a0z",
         "It's 12345 and 0.5", "<b>bold</b> & <i>", "a\u3000", "\u200bzero", "the end.", "}", "]\n", "\x7f\u0085"]
WORDS = "weather city days unit query limit path über 温度 a_b x.y file".split()
TYPES = ["image", "image_url", "video", "video_url", "audio", "audio_url", "input_audio"]


def text(r):
    return r.choice(TEXTS) if r.random() < 0.7 else " ".join(r.choice(WORDS) for _ in range(r.randint(1, 8)))


def value(r, depth=0):
    kind = r.randrange(9 if depth < 3 else 6)
    if kind < 2:
        return text(r)
    if kind < 6:
        return r.choice([0, -7, 12345678901234567890, 0.5, -1.25e-07, 1e+16, True, False, None, 3.0])
    if kind < 7:
        return [value(r, depth + 1) for _ in range(r.randint(0, 3))]
    return {r.choice(WORDS) + str(i): value(r, depth + 1) for i in range(r.randint(0, 3))}


def tool(r, i):
    function = {"name": f"{r.choice(WORDS)}_{i}", "description": text(r)}
    if r.random() < 0.8:
        function["parameters"] = {
            "type": "object", "required": [],
            "properties": {w: {"type": r.choice(["string", "integer", "object"]), "description": text(r), "default": value(r)}
                           for w in r.sample(WORDS, r.randint(0, 3))}}
    for key in ("strict", "defer_loading"):
        if r.random() < 0.3:
            function[key] = r.random() < 0.5
    if r.random() < 0.2:
        function["name\u00e9 x"] = value(r)
    items = list(function.items())
    r.shuffle(items)
    function = dict(items)
    return function if r.random() < 0.3 else {"type": "function", "function": function}


def name_of(tool):
    return tool.get("function", tool)["name"]


def content(r):
    if r.random() < 0.7:
        return text(r)
    parts = []
    for _ in range(r.randint(0, 4)):
        kind = r.random()
        parts.append({"type": "text", "text": text(r)} if kind < 0.6 else text(r) if kind < 0.75 else {"type": r.choice(TYPES)})
    return parts


def assistant(r, tools):
    message = {"role": "assistant", "content": content(r)}
    if r.random() < 0.4:
        message["reasoning_content"] = text(r)
    elif r.random() < 0.3:
        message["content"] = r.choice(["<think>why</think>because", "why</think> so ", "<think>a<think>b</think>c</think>\n\nd", "</think>"])
    if tools and r.random() < 0.6:
        message["tool_calls"] = []
        for i in range(r.randint(0, 3)):
            arguments = {w: value(r) for w in r.sample(WORDS, r.randint(0, 4))}
            if r.random() < 0.5:
                arguments = json.dumps(arguments, ensure_ascii=r.random() < 0.5, indent=r.choice([None, 1]))
            call = {"name": name_of(r.choice(tools)), "arguments": arguments}
            message["tool_calls"].append({"id": f"call_{i}", "type": "function", "function": call} if r.random() < 0.8 else call)
    return message


def results(r, tools):
    kind = r.random()
    if kind < 0.6:
        return {"role": "tool", "tool_call_id": "call_0", "content": content(r)}
    if kind < 0.8 or not tools:
        return {"role": "tool", "content": [{"output": text(r)} for _ in range(r.randint(1, 3))]}
    return {"role": "tool", "content": [{"type": "tool_reference", "name": r.choice([name_of(r.choice(tools)), "unknown"])}
                                        for _ in range(r.randint(1, 3))]}


def conversation(r):
    tools = [tool(r, i) for i in range(r.randint(1, 4))] if r.random() < 0.5 else []
    messages = [{"role": r.choice(["system", "developer"]), "content": content(r)}] if r.random() < 0.4 else []
    for _ in range(r.randint(1, 4)):
        if r.random() < 0.9:
            messages.append({"role": "user", "content": content(r)})
        for _ in range(r.randint(0, 2)):
            messages.append(assistant(r, tools))
            messages += [results(r, tools) for _ in range(r.randint(0, 3) if r.random() < 0.6 else 0)]
    case = {"messages": messages or [{"role": "user", "content": text(r)}]}
    if tools or r.random() < 0.1:
        case["tools"] = tools
    for option, share in (("no_thinking", 0.2), ("is_effort_high", 0.3), ("keep_thinking", 0.3)):
        if r.random() < share:
            case[option] = True
    return case


def for_template(messages):
    """What the template wants and OpenAI's form has otherwise."""
    messages = copy.deepcopy(messages)
    for message in messages:
        message["role"] = "system" if message["role"] == "developer" else message["role"]
        for call in message.get("tool_calls", []):
            call = call.get("function", call)
            if isinstance(call["arguments"], str):
                call["arguments"] = json.loads(call["arguments"])
    return messages


def main():
    source = pathlib.Path(sys.argv[1]).read_bytes()
    digest = hashlib.sha256(source).hexdigest()
    if digest != SHA256:
        sys.exit(f"{sys.argv[1]}: SHA-256 {digest}, expected {SHA256}")
    env = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols])
    env.filters["tojson"] = lambda x, ensure_ascii=False: json.dumps(x, ensure_ascii=ensure_ascii)
    template = env.from_string(source.decode())
    tokenizer = Tokenizer.from_file(str(NANO))
    random_source = random.Random(52)
    lines = []
    for _ in range(160):
        case = conversation(random_source)
        options = {"enable_thinking": False} if case.get("no_thinking") else {}
        options |= {"reasoning_effort": "high"} if case.get("is_effort_high") else {}
        options |= {"clear_thinking": False} if case.get("keep_thinking") else {}
        rendered = template.render(messages=for_template(case["messages"]), tools=case.get("tools") or [],
                                   add_generation_prompt=True, **options)
        case["ids"] = tokenizer.encode(rendered, add_special_tokens=False).ids
        lines.append(json.dumps(case, ensure_ascii=False, separators=(",", ":")))
    OUT.write_text("[\n" + ",\n".join(lines) + "\n]\n", encoding="utf-8")
    print(f"{OUT}: {len(lines)} conversations, {OUT.stat().st_size} bytes (jinja2 {jinja2.__version__})")


main()
