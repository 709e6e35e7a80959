#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Writes tests/golden/quark: what AMD Quark makes of models/glm-nano and of the edge models.

    tools/quark_reference.py --venv DIR [--check] [MODEL...]
    tools/quark_reference.py --venv DIR --run SOURCE TARGET [--recipe NAME] [--threads N]

Installs Quark and what it needs into the virtual environment DIR when it is not there (6 GB: torch
of PyPI brings CUDA along) and runs Quark's file-to-file quantization on the CPU with every recipe.
--check compares with the golden files instead of writing them.  --run quantizes one folder and
prints the seconds it took, imports not counted.

A file for each model holds

  versions   of Quark and of what it computes with
  source     {tensor: "DTYPE [shape] hash"}: what was quantized; hashes are the first 16 digits of
             SHA-256 of the tensor's bytes
  copied     {tensor: ...} of tensors that Quark writes otherwise than they were, unquantized
  dropped    tensors of the source that Quark's output has not
  quantized  {module: ["DTYPE [shape] hash" of .weight, the same of .weight_scale]}
  files      what lies in the output beside the shards
  config     {"mxfp4" | "none": quantization_config without exclude}, by declared activations
  kept       of FP8, recipe "experts" where what is not quantized stays FP8: {"layer": the one entry
             of layer_quant_config, "modules": those that have it, "exclude"}
  recipes    {name: {"globs": what Quark was given, "exclude": what it wrote for them}}

Quark's output by a recipe is: each tensor of `quantized` whose module `exclude` lacks, as quantized,
and all others as in `copied` or else `source`, less `dropped`.  The script makes sure that this holds.

vectors.json is of another form: matrices of a few rows, each with what it provokes, and in hex the
elements in bf16 (the most significant digit first) and the bytes that Quark makes of them, also of
those whose rows are no multiple of 32, and of Inf and NaN, both of which quern refuses.
"""
import argparse
import importlib.metadata
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[1]
GOLDEN = ROOT / "tests/golden/quark"
sys.path.insert(0, str(ROOT / "tests/support"))
import edge_model  # noqa: E402

# These work together; newer transformers may not, Quark 0.13 says.
PACKAGES = ("amd-quark==0.13", "torch==2.15.0", "transformers==5.16.1", "safetensors==0.8.0",
            "numpy==2.4.6", "accelerate==1.15.0")
MODELS = {"nano": None, "edge-f32": "F32", "edge-fp8": "FP8", "vectors": None}
# AMD's globs for amd/GLM-5.2-MXFP4, less the MTP layer's.
EXPERTS = ["*self_attn*", "*mlp.gate", "*lm_head", "*mlp.gate_proj", "*mlp.up_proj",
           "*mlp.down_proj"]
RECIPES = {"experts": EXPERTS, "routed": EXPERTS + ["*mlp.shared_experts*"], "mlp": EXPERTS[:3]}


def globs_of(recipe, config):
    """What Quark excludes by a recipe, of which NAME-mtp quantizes the MTP layer too."""
    name = recipe.removesuffix("-mtp")
    return RECIPES[name] + ([] if recipe != name else [f"*layers.{config['num_hidden_layers']}.*"])


def enter(venv):
    """Go on in the virtual environment, which is made first when it is not there."""
    python = venv / "bin/python"
    if pathlib.Path(sys.prefix).resolve() == venv.resolve():
        return
    if not (venv / "complete").exists():
        subprocess.run([sys.executable, "-m", "venv", venv], check=True)
        subprocess.run([python, "-m", "pip", "install", "-q", *PACKAGES], check=True)
        (venv / "complete").touch()
    os.execv(python, [str(python), "-B", *sys.argv])


def allow_fp8_without_gpu():
    """Quark widens FP8 with a kernel for GPUs and ends at once without one.  It is a product in
    f32, so here torch computes it; and the question whether the source needs a GPU gets a no."""
    import torch
    from quark.torch.quantization import file2file_quantization as f2f

    def widen(codes, scales, block_size=edge_model.N_TILE):
        for axis in (0, 1):
            scales = scales.repeat_interleave(block_size, axis).narrow(axis, 0, codes.size(axis))
        return codes.to(torch.float32) * scales

    ask = f2f.get_quantization_config
    answers = iter([None])
    f2f._weight_dequant_fp8 = widen
    f2f.get_quantization_config = lambda config: next(answers, ask(config))
    return lambda: setattr(f2f, "get_quantization_config", ask)


def quantize(source, target, globs, activations, keeps=False):
    """Run Quark; returns the seconds it took.  keeps: what is FP8 and excluded stays so."""
    from quark.torch import ModelQuantizer
    from quark.torch.quantization.config.config import OCP_MXFP4Spec, QConfig, QLayerConfig

    def spec(is_dynamic):
        return OCP_MXFP4Spec(ch_axis=-1, is_dynamic=is_dynamic).to_quantization_spec()

    parts = {"weight": spec(False)} | ({"input_tensors": spec(True)} if activations else {})
    config = QConfig(global_quant_config=QLayerConfig(**parts), exclude=globs)
    restore = allow_fp8_without_gpu()
    start = time.monotonic()
    ModelQuantizer(config).direct_quantize_checkpoint(
        pretrained_model_path=str(source), save_path=str(target), device="cpu",
        keep_excluded_layers_as_original_model_state=keeps)
    restore()
    return time.monotonic() - start


def merge(into, more):
    """Add to a dict what may not contradict it."""
    for key, value in more.items():
        assert into.setdefault(key, value) == value, (key, into[key], value)


def take(golden, recipe, globs, activations, target):
    """Add one output of Quark to the golden file; returns what is in it."""
    found, where = edge_model.facts(target)
    every = dict(found)
    config = json.loads((target / "config.json").read_text("utf-8"))["quantization_config"]
    exclude = config.pop("exclude")
    index = json.loads((target / "model.safetensors.index.json").read_text())
    assert index["weight_map"] == where
    quantized = {name.removesuffix(".weight_scale"): [found.pop(name[:-len("_scale")]), found.pop(name)]
                 for name in list(found) if name.endswith(".weight_scale")}
    assert not set(quantized) & set(exclude)
    merge(golden["quantized"], quantized)
    merge(golden["copied"], {name: fact for name, fact in found.items()
                             if golden["source"].get(name) != fact})
    merge(golden["config"], {activations: config})
    merge(golden["recipes"], {recipe: {"globs": globs, "exclude": exclude}})
    files = sorted(p.name for p in target.iterdir() if p.suffix != ".safetensors")
    assert golden["files"] in ([], files)
    golden["files"] = files
    dropped = set(golden["source"]) - set(found) - {name + ".weight" for name in quantized}
    assert golden["dropped"] in ([], sorted(dropped))
    golden["dropped"] = sorted(dropped)
    return every


def kept(source, target, globs):
    """What Quark says of FP8 that stays FP8."""
    quantize(source, target, globs, True, keeps=True)
    config = json.loads((target / "config.json").read_text("utf-8"))["quantization_config"]
    layers = config["layer_quant_config"]
    entries = {json.dumps(entry) for entry in layers.values()}
    assert len(entries) == 1
    return {"layer": json.loads(entries.pop()), "modules": sorted(layers),
            "exclude": config["exclude"]}


def reference(name, folder):
    """The golden file of a model."""
    source = ROOT / "models/glm-nano"
    if MODELS[name] is not None:
        source = folder / "source"
        edge_model.write(source, MODELS[name])
    golden = {"versions": {p: importlib.metadata.version(p) for p in ("amd-quark", "torch")},
              "source": edge_model.facts(source)[0], "copied": {}, "dropped": [], "quantized": {},
              "files": [], "config": {}, "recipes": {}}
    config = json.loads((source / "config.json").read_text("utf-8"))
    outputs = []
    for recipe in [r + mtp for r in RECIPES for mtp in ("", "-mtp")]:
        globs = globs_of(recipe, config)
        for activations in ("mxfp4", "none"):
            target = folder / f"{recipe}-{activations}"
            quantize(source, target, globs, activations == "mxfp4")
            outputs.append((recipe, take(golden, recipe, globs, activations, target)))
    if MODELS[name] == "FP8":
        golden["kept"] = kept(source, folder / "kept", globs_of("experts", config))
    for recipe, output in outputs:
        assert edge_model.expected(golden, recipe) == output, recipe
    return golden


def vectors(folder):
    """vectors.json with what Quark makes of its matrices."""
    golden = json.loads((GOLDEN / "vectors.json").read_text())
    modules = edge_model.write_vectors(folder / "source", golden["cases"])
    quantize(folder / "source", folder / "target", [], True)
    for case in golden["cases"]:
        name = modules[case["name"]] + ".weight"
        case["packed"] = edge_model.tensor(folder / "target", name).hex()
        case["scale"] = edge_model.tensor(folder / "target", name + "_scale").hex()
    return golden


def text_of(golden):
    """JSON with a line for each tensor."""
    if "cases" in golden:
        cases = ",\n".join(json.dumps(case) for case in golden.pop("cases"))
        return json.dumps(golden)[:-1] + f',\n"cases": [\n{cases}\n]}}\n'
    parts = []
    for key, value in golden.items():
        text = json.dumps(value, ensure_ascii=False)
        if key in ("source", "copied", "quantized", "recipes", "config"):
            entries = (f"  {json.dumps(k)}: {json.dumps(v)}" for k, v in value.items())
            text = "{\n" + ",\n".join(entries) + "\n }"
        parts.append(f" {json.dumps(key)}: {text}")
    return "{\n" + ",\n".join(parts) + "\n}\n"


def main():
    """Returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--venv", type=pathlib.Path, required=True)
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--run", type=pathlib.Path, nargs=2, metavar=("SOURCE", "TARGET"))
    parser.add_argument("--recipe", default="experts")
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("models", nargs="*", metavar="MODEL", choices=[[], *MODELS])
    arguments = parser.parse_args()
    enter(arguments.venv)
    if arguments.run:
        import torch
        if arguments.threads:
            torch.set_num_threads(arguments.threads)
        config = json.loads((arguments.run[0] / "config.json").read_text("utf-8"))
        print(quantize(*arguments.run, globs_of(arguments.recipe, config), True))
        return 0
    status = 0
    GOLDEN.mkdir(exist_ok=True)
    for name in arguments.models or MODELS:
        with tempfile.TemporaryDirectory() as folder:
            make = vectors if name == "vectors" else lambda at, name=name: reference(name, at)
            text = text_of(make(pathlib.Path(folder)))
        path = GOLDEN / f"{name}.json"
        if not arguments.check:
            path.write_text(text, "utf-8")
        elif path.read_text("utf-8") != text:
            print(f"{path}: is not what Quark makes here", file=sys.stderr)
            status = 1
    return status


if __name__ == "__main__":
    sys.exit(main())
