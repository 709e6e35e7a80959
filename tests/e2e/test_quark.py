#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""quern quantize --scale even writes what AMD Quark 0.13 writes, tensor by tensor.

The golden files in tests/golden/quark were made by Quark (tools/quark_reference.py, which says what
they hold).  QUERN names the program; without it build/release/quern is taken.
"""
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import unittest

ROOT = pathlib.Path(__file__).resolve().parents[2]
QUERN = os.environ.get("QUERN", str(ROOT / "build/release/quern"))
GOLDEN = ROOT / "tests/golden/quark"
NANO = ROOT / "models/glm-nano"
sys.path.insert(0, str(ROOT / "tests/support"))
import edge_model  # noqa: E402

INDEX, CONFIG = "model.safetensors.index.json", "config.json"
OURS = {"quern-manifest.json"}  # beside what Quark writes
N_LAYERS = {"nano": 4, "edge-f32": 3, "edge-fp8": 3}
FORMS = {"edge-f32": "F32", "edge-fp8": "FP8"}


def read_json(path):
    return json.loads(pathlib.Path(path).read_text("utf-8"))


def golden_of(model):
    return read_json(GOLDEN / f"{model}.json")


def quantize(source, target, *options):
    done = subprocess.run([QUERN, "quantize", str(source), str(target), "--scale", "even", *options],
                          capture_output=True, text=True, timeout=300, check=False)
    return done.returncode, done.stderr


def aliases(exclude, n_layers):
    """The names that docs/quantize.md adds to Quark's list, from that list."""
    mtp = f"model.layers.{n_layers}."
    found = set()
    for name in exclude:
        expert = re.fullmatch(r"(model\.layers\.\d+\.mlp\.experts)\.\d+\.\w+", name)
        if expert:  # the container, as vLLM and SGLang ask for it
            found.add(expert[1])
        if name.startswith(mtp):  # as SGLang calls the modules of its draft model
            rest = name.removeprefix(mtp)
            found.add("model.eh_proj" if rest == "eh_proj" else
                      "model.decoder.mlp.experts" if rest.startswith("mlp.experts.") else
                      "model.decoder." + rest)
    return found


def dict_differences(what, found, expected):
    """A line for each key whose values differ."""
    return [f"{what}: {key}: {found.get(key)}, {expected.get(key)} expected"
            for key in sorted(set(found) | set(expected)) if found.get(key) != expected.get(key)]


def config_differences(path, source_path, quark, expected_names):
    """What is not as in the file that Quark wrote, but for aliases: names, values, the text."""
    config, origin = read_json(path), read_json(source_path)
    origin.pop("quantization_config", None)
    names = config["quantization_config"].pop("exclude")
    errors = [f"exclude: {name}: unexpected" for name in sorted(set(names) - expected_names)]
    errors += [f"exclude: {name}: missing" for name in sorted(expected_names - set(names))]
    expected = origin | {"quantization_config": quark}
    if config != expected:
        errors.append(f"config: {json.dumps(config)}, {json.dumps(expected)} expected")
    if not errors:
        at = {"global_quant_config": quark["global_quant_config"], "exclude": sorted(expected_names)}
        text = json.dumps(origin | {"quantization_config": at | quark}, indent=4, ensure_ascii=False)
        if path.read_text("utf-8") != text:
            errors.append("config: another text, order of keys or names than Quark's")
    return errors


def differences(target, source, golden, recipe, activations, n_layers):
    """What is not as Quark wrote it, a line each."""
    target, source = pathlib.Path(target), pathlib.Path(source)
    found, where = edge_model.facts(target)
    errors = dict_differences("tensor", found, edge_model.expected(golden, recipe))
    source_where = edge_model.facts(source)[1]
    shards = {name: source_where[name.replace(".weight_scale", ".weight")] for name in found
              if name.replace(".weight_scale", ".weight") in source_where}
    index = read_json(target / INDEX)
    errors += dict_differences("shard", where, shards)
    errors += dict_differences("index", index["weight_map"], where)
    n_bytes = sum(path.stat().st_size for path in target.glob("*.safetensors"))
    if index["metadata"]["total_size"] != n_bytes:
        errors.append(f"index: total_size: {index['metadata']}, {n_bytes} expected")
    quark = golden["recipes"][recipe]["exclude"]
    errors += config_differences(target / CONFIG, source / CONFIG, golden["config"][activations],
                                 set(quark) | aliases(quark, n_layers))
    files = {path.name for path in target.iterdir() if path.suffix != ".safetensors"}
    errors += [f"file: {name}" for name in sorted(files ^ (set(golden["files"]) | OURS))]
    errors += [f"file: {name}: not as in the source" for name in sorted(files & set(os.listdir(source)))
               if name not in (INDEX, CONFIG)
               and (target / name).read_bytes() != (source / name).read_bytes()]
    return errors


class Case(unittest.TestCase):
    def setUp(self):
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="quern-quark-"))
        self.addCleanup(shutil.rmtree, self.folder)

    def source(self, model):
        if model == "nano":
            return NANO
        folder = self.folder / "source"
        if not folder.exists():
            edge_model.write(folder, FORMS[model])
            self.assertEqual(edge_model.facts(folder)[0], golden_of(model)["source"])
        return folder

    def quantize(self, model, recipe, activations, *options):
        """Quantize and compare; returns the folder."""
        source = self.source(model)
        target = self.folder / f"{recipe}-{activations}-{len(os.listdir(self.folder))}"
        name = recipe.removesuffix("-mtp")
        mtp = ["--mtp", "mxfp4"] if name != recipe else []
        status, errors = quantize(source, target, "--recipe", name, *mtp, "--activations",
                                  activations, *options)
        self.assertEqual(status, 0, errors)
        self.assertEqual(differences(target, source, golden_of(model), recipe, activations,
                                     N_LAYERS[model]), [])
        return target


class Recipes(Case):
    def test_of_nano(self):
        for recipe in golden_of("nano")["recipes"]:
            for activations in ("mxfp4", "none"):
                with self.subTest(recipe, activations=activations):
                    self.quantize("nano", recipe, activations)

    def test_of_awkward_weights(self):
        for model in FORMS:
            self.folder = pathlib.Path(tempfile.mkdtemp(prefix="quern-quark-"))
            self.addCleanup(shutil.rmtree, self.folder)
            for recipe in golden_of(model)["recipes"]:
                with self.subTest(model, recipe=recipe):
                    self.quantize(model, recipe, "mxfp4")

    def test_fp8_scales_may_lie_in_another_shard(self):
        edge_model.write(self.folder / "source", "FP8", scales_apart=True)
        self.quantize("edge-fp8", "experts", "mxfp4")
        model = json.loads(subprocess.run(
            [QUERN, "run", str(next(self.folder.glob("experts-*"))), "--ids", "1,2", "--json",
             "--max-tokens", "1"], capture_output=True, text=True, timeout=60, check=True).stdout)
        self.assertEqual(model["quantization"], "mxfp4")

    def test_without_options_it_is_amds(self):
        status, errors = quantize(NANO, self.folder / "out")
        self.assertEqual(status, 0, errors)
        self.assertEqual(differences(self.folder / "out", NANO, golden_of("nano"), "experts",
                                     "mxfp4", N_LAYERS["nano"]), [])

    def test_threads_and_levels_change_no_byte(self):
        for threads in ("1", "2", "5"):
            with self.subTest(threads=threads):
                self.quantize("edge-f32", "mlp-mtp", "none", "--threads", threads)
        for level in ("ref", "avx2"):
            with self.subTest(level=level):
                self.quantize("edge-f32", "mlp-mtp", "none", "--cpu-mask", level)


class Kept(Case):
    def test_fp8_that_stays_is_declared_as_quark_does(self):
        source, golden = self.source("edge-fp8"), golden_of("edge-fp8")
        status, errors = quantize(source, self.folder / "out", "--fp8", "keep")
        self.assertEqual(status, 0, errors)
        config = read_json(self.folder / "out" / CONFIG)["quantization_config"]
        kept = golden["kept"]["modules"]
        self.assertEqual(list(config["layer_quant_config"]), sorted(set(kept) | aliases(kept, 3)))
        for module, entry in config["layer_quant_config"].items():
            self.assertEqual(json.dumps(entry), json.dumps(golden["kept"]["layer"]), module)
        quark = golden["kept"]["exclude"]
        self.assertEqual(set(config["exclude"]), set(quark) | aliases(quark, 3))
        # Scales keep their names: engines do not find them under those that Quark gives them.
        found = edge_model.facts(self.folder / "out")[0]
        expected = edge_model.expected(golden, "experts")
        for module in golden["kept"]["modules"]:
            for name in (module + ".weight", module + ".weight_scale_inv"):
                expected[name] = golden["source"][name]
        self.assertEqual(dict_differences("tensor", found, expected), [])


class Refused(Case):
    def test_f16_which_quark_takes_is_refused_by_name(self):
        edge_model.write(self.folder / "source", "F16")
        status, errors = quantize(self.folder / "source", self.folder / "out")
        self.assertEqual(status, 3, errors)
        self.assertRegex(errors, r"model\.layers\.\d+\.mlp\.\S+\.weight: F16, ")


class Vectors(Case):
    def setUp(self):
        super().setUp()
        self.cases = read_json(GOLDEN / "vectors.json")["cases"]

    def quantize_cases(self, cases):
        source, target = self.folder / cases[0]["name"], self.folder / "out"
        modules = edge_model.write_vectors(source, cases)
        shutil.rmtree(target, ignore_errors=True)
        return modules, target, *quantize(source, target, "--recipe", "routed")

    def test_of_finite_elements(self):
        cases = [c for c in self.cases if c["finite"] and c["k"] % 32 == 0]
        self.assertGreaterEqual(len(cases), 12)
        modules, target, status, errors = self.quantize_cases(cases)
        self.assertEqual(status, 0, errors)
        for case in cases:
            with self.subTest(case["name"]):
                name = modules[case["name"]] + ".weight"
                self.assertEqual(edge_model.tensor(target, name).hex(), case["packed"])
                self.assertEqual(edge_model.tensor(target, name + "_scale").hex(), case["scale"])

    def test_what_quern_refuses_it_names(self):
        for case in self.cases:
            if case["finite"] and case["k"] % 32 == 0:
                continue
            with self.subTest(case["name"]):
                modules, target, status, errors = self.quantize_cases([case])
                self.assertEqual(status, 3, errors)
                self.assertIn(modules[case["name"]], errors)
                self.assertEqual(list(target.glob("*.safetensors")), [])
                if not case["finite"]:
                    bits = [int(case["bf16"][i:i + 4], 16) for i in range(0, len(case["bf16"]), 4)]
                    first = next(i for i, b in enumerate(bits) if b & 0x7F80 == 0x7F80)
                    self.assertRegex(errors, rf"\b{first}\b|\[{first // case['k']}, *{first % case['k']}\]")


class Comparer(Case):
    """It sees what is planted in an output that is right."""

    def setUp(self):
        super().setUp()
        self.target = self.quantize("edge-f32", "experts", "mxfp4")
        self.golden = golden_of("edge-f32")
        self.name = "model.layers.1.mlp.experts.1.down_proj.weight"

    def found(self):
        return [line.split(",")[0] for line in differences(
            self.target, self.source("edge-f32"), self.golden, "experts", "mxfp4", 3)]

    def flip(self, name, bit):
        path = self.target / read_json(self.target / INDEX)["weight_map"][name]
        header, start = edge_model.shard_header(path)
        raw = bytearray(path.read_bytes())
        raw[start + header[name]["data_offsets"][1] - 1] ^= bit
        path.write_bytes(raw)

    def edit(self, name, change):
        value = read_json(self.target / name)
        change(value)
        (self.target / name).write_text(json.dumps(value, indent=4, ensure_ascii=False), "utf-8")

    def test_a_nibble(self):
        self.flip(self.name, 0x10)
        self.assertEqual(len(self.found()), 1)
        self.assertTrue(self.found()[0].startswith(f"tensor: {self.name}: U8"))

    def test_a_scale(self):
        self.flip(self.name + "_scale", 1)
        self.assertEqual(len(self.found()), 1)
        self.assertTrue(self.found()[0].startswith(f"tensor: {self.name}_scale: U8"))

    def test_a_copied_tensor(self):
        self.flip("model.norm.weight", 1)
        self.assertEqual(len(self.found()), 1)

    def test_a_name_missing_in_the_index(self):
        self.edit(INDEX, lambda index: index["weight_map"].pop(self.name))
        self.assertEqual(self.found(), [f"index: {self.name}: None"])

    def test_a_name_missing_in_exclude(self):
        self.edit(CONFIG, lambda c: c["quantization_config"]["exclude"].remove("lm_head"))
        self.assertEqual(self.found(), ["exclude: lm_head: missing"])

    def test_a_name_too_many_in_exclude(self):
        self.edit(CONFIG, lambda c: c["quantization_config"]["exclude"].append("model.norm"))
        self.assertEqual(self.found(), ["exclude: model.norm: unexpected"])

    def test_the_order_in_the_config(self):
        self.edit(CONFIG, lambda c: c.update(hidden_size=c.pop("hidden_size")))
        self.assertEqual(len(self.found()), 1)

    def test_the_order_in_exclude(self):
        self.edit(CONFIG, lambda c: c["quantization_config"]["exclude"].reverse())
        self.assertEqual(len(self.found()), 1)

    def test_a_field_of_the_config(self):
        self.edit(CONFIG, lambda c: c["quantization_config"].update(version="0.14"))
        self.assertEqual(len(self.found()), 1)

    def test_a_file(self):
        (self.target / "notes.txt").write_text("other")
        (self.target / "README.md").write_text("")
        self.assertEqual(self.found()[0], "file: README.md")
        self.assertIn("file: notes.txt: not as in the source", self.found())


if __name__ == "__main__":
    unittest.main()
