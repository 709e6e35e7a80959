#!/usr/bin/env python3
"""The dummy weights of docs/formats.md in numpy: the same numbers as src/model/dummy.c, bit for bit.

    tools/golden/dummy.py           write tests/golden/dummy.json: digests of matrices of every storage
    tools/golden/dummy.py --check   exit 1 where it differs from what would be written
"""
import hashlib
import json
import pathlib
import sys

import numpy as np

OUT = pathlib.Path(__file__).resolve().parents[2] / "tests/golden/dummy.json"

MASK = (1 << 64) - 1
GOLDEN = 0x9E3779B97F4A7C15


def mix(z):
    """SplitMix64's finaliser on uint64 arrays (src/base/rng.h)."""
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


def rng(seed, stream, n):
    """64 random bits for counters 0 .. n-1."""
    with np.errstate(over="ignore"):
        h = mix(np.array([(seed + GOLDEN) & MASK], np.uint64))
        h = mix(h ^ np.uint64((stream + GOLDEN) & MASK))
        return mix(h ^ (np.arange(n, dtype=np.uint64) + np.uint64(GOLDEN)))


def fnv1a(name):
    h = 14695981039346656037
    for byte in name.encode():
        h = ((h ^ byte) * 1099511628211) & MASK
    return h


def bf16(x):
    """Round f32 to bf16 and back, ties to even."""
    bits = x.astype(np.float32).view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) & 0xFFFF0000).astype(np.uint32).view(np.float32)


def tensor(name, shape, seed):
    """Value of one tensor as f32 (already rounded to its storage)."""
    n = int(np.prod(shape))
    v = (rng(seed, fnv1a(name), n) >> np.uint64(40)).astype(np.float32) * np.float32(2.0**-23) - np.float32(1)
    if name.endswith("e_score_correction_bias"):
        return (np.float32(0.1) * v).reshape(shape)
    if name.endswith("norm.bias"):
        return bf16(np.float32(0.25) * v).reshape(shape)
    if len(shape) == 1:
        return bf16(np.float32(1) + np.float32(0.25) * v).reshape(shape)
    if name.endswith("embed_tokens.weight"):
        return bf16(v).reshape(shape)
    factor = np.float32(np.sqrt(3.0) * gain_of(name) / np.sqrt(float(shape[1])))
    return bf16(v * factor).reshape(shape)


def gain_of(name):
    return 4.0 if name.endswith("mlp.gate.weight") else 1.0


def draw_bytes(name, seed, first, n):
    """n bytes of the draws from number first on, eight of each."""
    return rng(seed, fnv1a(name), first + -(-n // 8))[first:].astype("<u8").tobytes()[:n]


def mxfp4(name, shape, seed):
    """Bytes of the codes and of the scales."""
    n_out, n_in = shape
    n_bytes = n_out * n_in // 2
    square, exponent = gain_of(name) ** 2 / (8.5625 * n_in), 0
    while square < 1:
        square, exponent = square * 4, exponent - 1
    while square >= 4:
        square, exponent = square / 4, exponent + 1
    threshold = int(256 * (square - 1) / 3 + 0.5)
    drawn = np.frombuffer(draw_bytes(name, seed, -(-n_bytes // 8), n_out * n_in // 32), np.uint8)
    scales = np.where(drawn < threshold, 128 + exponent, 127 + exponent).astype(np.uint8)
    return draw_bytes(name, seed, 0, n_bytes), scales.tobytes()


def fp8(name, shape, seed, n_scales):
    """Bytes of the codes and of the scales."""
    n_out, n_in = shape
    codes = np.frombuffer(draw_bytes(name, seed, 0, n_out * n_in), np.uint8) & 0x9F | 0x20
    factor = np.float32(gain_of(name) / np.sqrt(0.713348388671875 * n_in))
    first = -(-n_out * n_in // 8)
    v = (rng(seed, fnv1a(name), first + n_scales)[first:] >> np.uint64(40)).astype(np.float32)
    v = v * np.float32(2.0**-23) - np.float32(1)
    return codes.tobytes(), (factor * (np.float32(1) + np.float32(0.125) * v)).astype("<f4").tobytes()


def matrix(name, kind, shape, seed):
    """Bytes of a matrix and of its scales as a checkpoint would have them."""
    if kind == "mxfp4":
        return mxfp4(name, shape, seed)
    if kind == "fp8_block":
        return fp8(name, shape, seed, -(-shape[0] // 128) * -(-shape[1] // 128))
    if kind == "fp8_channel":
        return fp8(name, shape, seed, shape[0])
    return (tensor(name, shape, seed).view(np.uint32) >> 16).astype("<u2").tobytes(), b""


def digests():
    cases = []
    names = ("model.layers.3.mlp.experts.1.up_proj.weight", "model.layers.3.mlp.gate.weight")
    for kind, shapes in {"bf16": ((24, 40), (9, 5)), "mxfp4": ((24, 96), (130, 256)),
                         "fp8_block": ((300, 200), (9, 5)), "fp8_channel": ((40, 96), (9, 5))}.items():
        for name, shape in zip(names, shapes):
            elements, scales = matrix(name, kind, shape, 7)
            cases.append({"name": name, "kind": kind, "n_out": shape[0], "n_in": shape[1], "seed": 7,
                          "elements": hashlib.sha256(elements).hexdigest(),
                          "scales": hashlib.sha256(scales).hexdigest()})
    return json.dumps({"cases": cases}, indent=1) + "\n"


def main():
    if sys.argv[1:] not in ([], ["--check"]):
        sys.exit(__doc__)
    if not sys.argv[1:]:
        OUT.write_text(digests())
    elif OUT.read_text() != digests():
        sys.exit(f"{OUT}: differs from what tools/golden/dummy.py writes")


if __name__ == "__main__":
    main()
