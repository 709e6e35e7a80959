#!/usr/bin/env python3
"""Makes tests/golden/tokenizer: 5,000 strings and what Hugging Face `tokenizers` makes of them.

    python3 -m venv venv && venv/bin/pip install tokenizers==0.23.3
    venv/bin/python tools/golden/make_tokenizer_golden.py [--compare BINARY N]

strings.bin      for each string: u32 length, bytes (some are not UTF-8: they stand for decode("utf-8", "replace"))
nano.hashes      u32 FNV-1a of the ids (little-endian i32) of each string, models/glm-nano's tokenizer
small.json       a small tokenizer of another build: ignore_merges, merges as "a b", no added tokens
small.hashes     as nano.hashes

--compare runs `BINARY tokenize` over N fresh random strings instead (a check by hand, slower)."""
import argparse, json, pathlib, random, struct, subprocess, sys, tempfile

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers, Regex

ROOT = pathlib.Path(__file__).resolve().parents[2]
OUT = ROOT / "tests/golden/tokenizer"
NANO = ROOT / "models/glm-nano/tokenizer.json"

RANGES = [(0x20, 0x7E), (0xA0, 0x24F), (0x370, 0x3FF), (0x400, 0x4FF), (0x530, 0x58F), (0x590, 0x5FF), (0x600, 0x6FF),
          (0x700, 0x74F), (0x900, 0x97F), (0x980, 0x9FF), (0xB80, 0xBFF), (0xE00, 0xE7F), (0x10A0, 0x10FF),
          (0x1100, 0x11FF), (0x1200, 0x137F), (0x13A0, 0x13FF), (0x1780, 0x17FF), (0x1800, 0x18AF), (0x1E00, 0x1EFF),
          (0x2000, 0x206F), (0x2070, 0x209F), (0x20A0, 0x20CF), (0x2100, 0x218F), (0x2190, 0x23FF), (0x2460, 0x24FF),
          (0x2500, 0x27BF), (0x3000, 0x30FF), (0x3130, 0x318F), (0x4E00, 0x9FFF), (0xAC00, 0xD7A3), (0xFB00, 0xFDFF),
          (0xFE00, 0xFEFF), (0xFF00, 0xFFEF), (0x10330, 0x1034F), (0x1D400, 0x1D7FF), (0x1F300, 0x1FAFF), (0x20000, 0x20FFF)]
SPACES = [" ", "  ", "   ", "\t", "\n", "\r\n", "\r", "\v", "\f", "\u0085", "\u00a0", "\u1680", "\u180e", "\u2003", "\u200b",
          "\u2028", "\u2029", "\u202f", "\u205f", "\u3000", "\ufeff", "\n\n", " \n", "\n ", "\x1c", "\x1f"]
WORDS = ("the of and to in is you that it he was for on are with as I his they be at one have this from or had by hot word "
         "but what some we can out other were all there when up use your how said an each she which do their time if will way "
         "about many then them write would like so these her long make thing see him two has look more day could go come did "
         "number sound no most people my over know water than call first who may down side been now find any new work part "
         "Paris London x86_64 HTTP/1.1 C++ naïve café Ærøskøbing straße Ἀθῆναι Москва 東京 서울 مرحبا שלום नमस्ते สวัสดี").split()
CONTRACTIONS = ["'s", "'S", "'t", "'T", "'re", "'RE", "'Ve", "'m", "'LL", "'d", "'D", "\u2019s", "'\u017f", "'x", "''", "'"]
CODE = ["int main(void)\n{\n    return 0;\n}\n", "for (int i = 0; i < n; i++)\n\tx[i] += y[i];\n", "def f(x):\n    return x**2\n",
        '{"a": [1, 2.5, null], "b": "\\n"}', "<html><body>&amp;</body></html>", "SELECT * FROM t WHERE a='b';", "x = a ? b : c;  // why",
        "\\begin{align}x^2\\end{align}", "https://example.org/a?b=c&d=%20#e", "foo_bar.baz->qux::Quux<T>", "#include <stdio.h>\r\n"]
EMOJI = ["😀", "👩‍💻", "👨‍👩‍👧‍👦", "🇫🇷", "👍🏽", "❤️", "☃", "1️⃣", "🏴\U000e0067\U000e0062\U000e007f"]
BROKEN = [b"\x80", b"\xff", b"\xc3", b"\xe2\x82", b"\xf0\x9f\x98", b"\xed\xa0\x80", b"\xc0\xaf", b"\xf8\x88\x80\x80\x80", b"\xe0\x80\x80",
          b"\xf4\x90\x80\x80", b"\xbf\xbf", b"a\xe4\xb8"]


def piece(r, added):
    kind = r.randrange(14)
    if kind < 4:
        return " ".join(r.choice(WORDS) for _ in range(r.randint(1, 5))).encode()
    if kind == 4:
        low, high = r.choice(RANGES)
        return "".join(chr(r.randint(low, high)) for _ in range(r.randint(1, 8))).encode()
    if kind == 5:
        return "".join(r.choice(SPACES) for _ in range(r.randint(1, 6))).encode()
    if kind == 6:
        return str(r.choice([r.randrange(10), r.randrange(1000), r.randrange(10**9), r.random()])).encode()
    if kind == 7:
        return (r.choice(WORDS) + r.choice(CONTRACTIONS)).encode()
    if kind == 8:
        return r.choice(CODE).encode()
    if kind == 9:
        return r.choice(EMOJI).encode() * r.randint(1, 3)
    if kind == 10:
        return r.choice(BROKEN) * r.randint(1, 2)
    if kind == 11:
        text = r.choice(added)
        return text[:r.randint(1, len(text))].encode() if r.random() < 0.4 else text.encode()
    if kind == 12:
        return bytes([r.randrange(32) if r.random() < 0.7 else 127]) * r.randint(1, 3)
    return "".join(r.choice("!\"#$%&()*+,-./:;<=>?@[\\]^_`{|}~") for _ in range(r.randint(1, 6))).encode()


def strings(seed, n, added):
    r = random.Random(seed)
    fixed = [b"", b" ", b"\n", b"a", " \u3000".encode(), b"  hello  world  ", "e\u0301\u0301".encode(), b"\x00", b"'s", b"a" * 200,
             b" " * 100, b"\n" * 50, b"don't DON'T Don'T", "I\u0130i\u0131".encode()]
    for i in range(n):
        yield fixed[i] if i < len(fixed) else b"".join(piece(r, added) for _ in range(r.choice([1, 1, 2, 2, 3, 4])))


def fnv32(ids):
    h = 2166136261
    for byte in struct.pack(f"<{len(ids)}i", *ids):
        h = ((h ^ byte) * 16777619) & 0xFFFFFFFF
    return h


def encode(tokenizer, raw):
    return tokenizer.encode(raw.decode("utf-8", "replace"), add_special_tokens=False).ids


def make_small(texts):
    split = json.loads(NANO.read_text())["pre_tokenizer"]["pretokenizers"][0]["pattern"]["Regex"]
    t = Tokenizer(models.BPE())
    t.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(split), "isolated"),
                                               pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    t.decoder = decoders.ByteLevel()
    t.train_from_iterator([x.decode("utf-8", "replace") for x in texts], trainers.BpeTrainer(
        vocab_size=900, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False))
    j = json.loads(t.to_str())
    j["model"]["ignore_merges"] = True
    # A word whose merges lead elsewhere: only ignore_merges finds it whole.
    j["model"]["vocab"]["Parisxyz"] = len(j["model"]["vocab"])
    j["model"]["vocab"]["straÃŁe"] = len(j["model"]["vocab"])
    merges = j["model"]["merges"]
    j["model"]["merges"] = [m if isinstance(m, str) else " ".join(m) for m in merges]
    (OUT / "small.json").write_text(json.dumps(j, ensure_ascii=False, separators=(",", ":")))
    return Tokenizer.from_file(str(OUT / "small.json"))


def compare(binary, n, added):
    tokenizer = Tokenizer.from_file(str(NANO))
    bad = 0
    with tempfile.TemporaryDirectory() as folder:
        # One file, many strings: a control token between them keeps them apart for both sides.
        fence = b"<|endoftext|>"
        raws = [x.replace(b"\x00", b"") for x in strings(99, n, added)]
        path = pathlib.Path(folder) / "text"
        path.write_bytes(fence.join(raws))
        got = subprocess.run([binary, "tokenize", str(NANO.parent), "-f", str(path)], check=True, capture_output=True).stdout.split()
        want = encode(tokenizer, fence.join(raws))
        for i, (a, b) in enumerate(zip(map(int, got), want)):
            if a != b:
                bad += 1
                print("differs at token", i, tokenizer.decode(want[max(0, i - 5):i + 5]).encode(), a, b)
                break
        print(f"{n} strings, {len(want)} ids, {'the same' if not bad and len(got) == len(want) else 'DIFFERENT'}")
    return bad


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--compare", nargs=2, metavar=("BINARY", "N"))
    args = parser.parse_args()
    added = [t["content"] for t in json.loads(NANO.read_text())["added_tokens"]]
    if args.compare:
        return compare(args.compare[0], int(args.compare[1]), added)
    OUT.mkdir(parents=True, exist_ok=True)
    texts = list(strings(5, 5000, added))
    (OUT / "strings.bin").write_bytes(b"".join(struct.pack("<I", len(x)) + x for x in texts))
    nano = Tokenizer.from_file(str(NANO))
    small = make_small(texts)
    for name, tokenizer in (("nano", nano), ("small", small)):
        (OUT / f"{name}.hashes").write_bytes(b"".join(struct.pack("<I", fnv32(encode(tokenizer, x))) for x in texts))
    return 0


if __name__ == "__main__":
    sys.exit(main())
