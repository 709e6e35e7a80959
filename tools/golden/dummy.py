"""The dummy weights of docs/formats.md in numpy: the same numbers as src/model/dummy.c, bit for bit."""
import numpy as np

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
    gain = 4.0 if name.endswith("mlp.gate.weight") else 1.0
    factor = np.float32(np.sqrt(3.0) * gain / np.sqrt(float(shape[1])))
    return bf16(v * factor).reshape(shape)
