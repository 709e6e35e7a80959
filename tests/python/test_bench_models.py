#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""bench/models.py: quantised weights are what docs/formats.md says, the same ones in GGUF."""
import json
import pathlib
import sys
import tempfile
import unittest

try:
    import numpy as np
except ImportError:
    print("left out: it needs numpy (python3-numpy)")
    sys.exit(0)

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "bench"))
import models  # noqa: E402

E2M1 = np.array([0, 0.5, 1, 1.5, 2, 3, 4, 6, 0, -0.5, -1, -1.5, -2, -3, -4, -6], np.float32)
# 32 values in bf16 that hold every tie, and what AMD Quark 0.13 packs them to; the scale is 2^-1.
TIES = ("3fe0bfe03e00be003ec0bec03f20bf203f603fa0bfa03fc03e803f003f403f80"
        "000080003d803e40be403fa83f883f503f103ee03ea03fd0bfc8bf803e033dfc")
TIES_PACKED = "e600a2a2445c2143001059342251cd01"


def from_bf16(bits):
    return (np.asarray(bits).astype(np.uint32) << 16).view(np.float32)


def e4m3(codes):
    """Values of FP8 codes."""
    exponent, mantissa = (codes >> 3 & 15).astype(np.int32), (codes & 7).astype(np.float32)
    size = np.where(exponent == 0, mantissa / 8 * 2.0**-6,
                    (1 + mantissa / 8) * np.exp2(exponent - 7.0))
    return np.where(codes & 128, -size, size)


class Models(unittest.TestCase):
    def values(self, shape):
        random = np.random.default_rng(3)
        return from_bf16(models.to_bf16(random.standard_normal(shape, np.float32)))

    def test_mxfp4_rounds_as_quark_does(self):
        codes, scales = models.to_mxfp4(
            from_bf16(np.frombuffer(bytes.fromhex(TIES), ">u2")).reshape(1, 32))
        self.assertEqual(codes.tobytes().hex(), TIES_PACKED)
        self.assertEqual(scales.tolist(), [[126]])
        self.assertEqual(models.to_mxfp4(np.zeros((1, 32), np.float32))[1].tolist(), [[1]])

    def test_mxfp4_of_gguf_has_the_same_values(self):
        codes, scales = models.to_mxfp4(self.values((6, 96)))
        ours = np.stack((codes & 15, codes >> 4), axis=-1).reshape(6, 3, 32)
        blocks = models.gguf_mxfp4(codes, scales).reshape(6, 3, 17)
        theirs = np.concatenate((blocks[..., 1:] & 15, blocks[..., 1:] >> 4), axis=-1)
        self.assertTrue((E2M1[ours] == E2M1[theirs]).all())
        self.assertTrue((scales == blocks[..., 0]).all())

    def test_shards_and_their_index_hold_every_tensor_once(self):
        values = {f"t{i}": np.arange(i, i + 6, dtype=np.uint16) for i in range(5)}
        with tempfile.TemporaryDirectory() as folder:
            models.write(folder, {}, [(name, "BF16", (2, 3), lambda v=v: v)
                                      for name, v in values.items()], shard_bytes=20)
            folder = pathlib.Path(folder)
            shards = sorted(path.name for path in folder.glob("*.safetensors"))
            self.assertEqual(shards, [f"model-{i:05}-of-00003.safetensors" for i in (1, 2, 3)])
            have = models.Checkpoint(folder).tensors
            self.assertEqual({name: raw.tobytes() for name, (_, _, raw) in have.items()},
                             {name: v.tobytes() for name, v in values.items()})
            index = json.loads((folder / "model.safetensors.index.json").read_text())
            self.assertEqual(index["metadata"]["total_size"], 60)
            self.assertEqual(index["weight_map"], {
                f"t{i}": shards[i // 2] for i in range(5)})

    def test_fp8_takes_the_nearest_code(self):
        values = self.values((130, 200))
        values[0, :4] = [1e-4, -2e-4, 0, 448]  # small codes beside the largest
        codes, scales = models.to_fp8(values)
        self.assertEqual(scales.shape, (2, 2))
        scaled = values / np.repeat(np.repeat(scales, 128, 0), 128, 1)[:130, :200]
        every = e4m3(np.array([c for c in range(256) if c & 127 != 127], np.uint8))
        nearest = np.abs(scaled[..., None] - every).min(axis=-1)
        self.assertTrue((np.abs(scaled - e4m3(codes)) <= nearest * (1 + 1e-6)).all())

    def test_a_written_model_is_read_back(self):
        array = models.to_bf16(self.values((3, 4)))
        with tempfile.TemporaryDirectory() as folder:
            models.write(folder, {"a": 1}, [("x.weight", "BF16", (3, 4), lambda: array)])
            have = models.Checkpoint(folder)
            self.assertEqual(have.config, {"a": 1})
            self.assertTrue((have.f32("x.weight") == from_bf16(array)).all())

    def test_the_dummy_has_the_size_it_claims(self):
        sizes = {name: int(np.prod(shape)) for name, shape in models.shapes(models.DUMMY)}
        unused = 1 - models.DUMMY["num_experts_per_tok"] / models.DUMMY["n_routed_experts"]
        idle = sizes["model.embed_tokens.weight"] + unused * sum(
            size for name, size in sizes.items() if ".experts." in name)
        self.assertEqual(round(sum(sizes.values()) / 1e7), 132)
        self.assertEqual(round((sum(sizes.values()) - idle) / 1e6), 236)


if __name__ == "__main__":
    unittest.main()
