#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Pages as a reader gets them: whole in one file, well-formed, nothing from elsewhere, with plots or
with what they would have shown.  How they are made of a result, tests/unit/report tells.
"""
import html.parser
import json
import os
import pathlib
import re
import subprocess
import tempfile
import time
import unittest
import xml.etree.ElementTree

from mocking import Bench, Mock
from test_bench_serve import RANDOM, sizes
from test_cli import NANO, QUERN, Case

ROOT = pathlib.Path(__file__).resolve().parents[2]
RESULTS = ROOT / "tests/unit/report"
N_PLOTS = {"serve": 11, "compare": 4, "engine": 2, "kernels": 1, "eval": 2, "quantize": 2}
VOID = {"meta"}
# Tags that bring in something, or do something.
REFUSED = {"script", "link", "img", "iframe", "object", "embed", "base", "form", "audio", "video"}


class Page(html.parser.HTMLParser):
    """Tags, and what is wrong with them."""

    def __init__(self, text):
        super().__init__()
        self.open, self.ids, self.links, self.tags, self.errors = [], [], [], [], []
        self.texts = []
        self.feed(text)
        self.close()
        if self.open:
            self.errors.append("not closed: %s" % self.open)

    def handle_starttag(self, tag, attrs):
        attributes = dict(attrs)
        self.tags.append(tag)
        if len(attributes) != len(attrs):
            self.errors.append("an attribute twice: %s %s" % (tag, attrs))
        if tag in REFUSED or any(name.startswith("on") for name in attributes):
            self.errors.append("refused: %s %s" % (tag, attrs))
        if "id" in attributes:
            self.ids.append(attributes["id"])
        if tag == "a":
            self.links.append(attributes["href"])
        elif tag != "use" and {"src", "href", "srcset", "data"} & set(attributes):
            self.errors.append("from elsewhere: %s %s" % (tag, attrs))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        if not self.open or self.open.pop() != tag:
            self.errors.append("closes nothing: %s at %s" % (tag, self.getpos()))

    def handle_data(self, data):
        self.texts.append(data)


def kinds(value, path="", known=()):
    """{path: kinds of values there}; members of objects whose keys are data are one path."""
    here = {path: {"number" if type(value) in (int, float) else type(value).__name__}}
    members = value.items() if isinstance(value, dict) else ()
    for name, member in [*members, *(("", v) for v in (value if isinstance(value, list) else ()))]:
        name = "*" if path in known else name
        for key, found in kinds(member, path + "." + name, known).items():
            here[key] = here.get(key, set()) | found
    return here


class Fixture(unittest.TestCase):
    DATA = {".server.notes", ".server.sources", ".workload.sampling", ".runs..errors",
            ".runs..error_messages", ".runs..finish_reasons"}

    def test_a_result_made_by_hand_has_what_the_program_writes(self):
        made, short = {}, (*RANDOM, *sizes(32, 4, 8), "--note", "a=b", "--temperature", 1,
                           "--max-concurrency", 4)
        with tempfile.NamedTemporaryFile("w", suffix=".csv") as power, Mock(
                ttft_ms=10, tpot_ms=1, cached_tokens="prefix", draft_tokens=2, tokens_per_chunk=2,
                faults=[{"kind": "status", "status": 500, "requests": [5]}]) as mock:
            power.write("".join("%.1f, 200\n" % (time.time() + i / 2) for i in range(-9, 99)))
            power.flush()
            for flags in (("--repeat", 2, "--request-rate", 200, "--accelerator", "H200",
                           "--accelerators", 1, "--power", power.name), ("--sensitivity",),
                          ("--knee", "ttft:5")):
                common = short[:-2] if "--knee" in flags else short
                result = Bench(mock.url, *common, *flags, status=None).result
                for path, found in kinds(result, "", self.DATA).items():
                    made[path] = made.get(path, set()) | found
        by_hand = json.loads((RESULTS / "serve.json").read_text())
        for path, found in kinds(by_hand, "", self.DATA).items():
            self.assertTrue(path in made or path == ".knee.runs.", path)  # none is found here
            if made.get(path, {"NoneType"}) != {"NoneType"}:
                self.assertLessEqual(found - {"NoneType"}, made[path], path)
        self.assertEqual(by_hand["workload"]["api"], result["workload"]["api"])


class Reports(Case):
    def report(self, result, **environment):
        """The text of report.html, made of a file or of a value."""
        path = result
        if not isinstance(result, pathlib.Path):
            path = pathlib.Path(self.path("made.json"))
            path.write_text(json.dumps(result), encoding="utf-8")
        done = subprocess.run([QUERN, "bench", "report", str(path), "--output", self.path("out")],
                              env=dict(os.environ, **environment), capture_output=True, text=True,
                              timeout=120, check=False)
        self.assertEqual((done.returncode, done.stdout), (0, ""), done.stderr)
        return pathlib.Path(self.path("out"), "report.html").read_text(encoding="utf-8")

    def check(self, text):
        page = Page(text)
        self.assertEqual(page.errors, [])
        self.assertEqual(len(page.ids), len(set(page.ids)), "an id twice")
        for link in page.links:
            self.assertRegex(link, r"^https?://")
        style = text[text.index("<style>"):text.index("</style>")]
        self.assertNotIn("url(", style)
        self.assertNotIn("@import", style)
        for name in set(re.findall(r"var\((--[a-z0-9]+)\)", text)):
            self.assertGreaterEqual(style.count(name + ":"), 3, name + " light, dark and on paper")
        return page

    def svgs(self, text):
        return [xml.etree.ElementTree.fromstring(svg)
                for svg in re.findall(r"<svg.*?</svg>", text, re.DOTALL)]

    def test_each_page_is_well_formed_and_whole(self):
        for name, n_plots in N_PLOTS.items():
            with self.subTest(name):
                text = self.report(RESULTS / (name + ".json"))
                page = self.check(text)
                svgs = self.svgs(text)
                self.assertEqual((len(svgs), page.tags.count("figcaption")), (n_plots, n_plots))
                for svg in svgs:
                    self.assertEqual(svg.get("role"), "img")
                    title = svg.find("{http://www.w3.org/2000/svg}title")
                    self.assertEqual(title.get("id"), svg.get("aria-labelledby"))
                    self.assertTrue(title.text)
                    self.assertIn("viewBox", svg.attrib)
                    self.assertEqual(len(list(svg.iter(title.tag))), 1, "one title, ours")
                    # All that has a colour has one of the page's, or that of its group.
                    for element in svg.iter():
                        for key in ("stroke", "fill"):
                            self.assertNotIn("rgb", element.get(key, ""))
                self.assertEqual(text, self.report(RESULTS / (name + ".json")), "again")
                self.assertNotIn("nan", " ".join(page.texts).lower().split())

    def test_points_of_a_curve_lie_where_their_values_are(self):
        """Of the first plot: as far apart as the rates are."""
        svg = self.svgs(self.report(RESULTS / "serve.json"))[0]
        series = [g for g in svg.iter("{http://www.w3.org/2000/svg}g")
                  if g.get("id") == "plot1_plot_1"]
        self.assertEqual(len(series), 1)
        xs = sorted(float(re.match(r"translate\(([\d.]+),", use.get("transform")).group(1))
                    for use in series[0].iter("{http://www.w3.org/2000/svg}use"))
        rates = sorted(run["request_rate"]
                       for run in json.loads((RESULTS / "serve.json").read_text())["runs"])
        self.assertEqual(len(xs), len(rates))
        scale = (xs[-1] - xs[0]) / (rates[-1] - rates[0])
        for x, rate in zip(xs, rates):
            self.assertAlmostEqual(x - xs[0], scale * (rate - rates[0]), delta=0.5)

    def test_no_text_of_a_result_is_markup_or_gnuplot(self):
        evil = "'\"><script>alert(1)</script>`touch %s`\\\n$(touch %s) @x {/Symbol a}" % (
            self.path("touched"), self.path("touched"))

        def spoil(value):
            if isinstance(value, dict):
                return {k if k in known else evil: spoil(v) for k, v in value.items()}
            if isinstance(value, list):
                return [spoil(v) for v in value]
            return evil if isinstance(value, str) else value

        for name in N_PLOTS:
            with self.subTest(name):
                result = json.loads((RESULTS / (name + ".json")).read_text())
                known = set(result) | set(json.dumps(result).split('"'))
                for errors in ("errors", "error_messages"):
                    known -= {key for run in result.get("runs", []) if isinstance(run, dict)
                              for key in run.get(errors) or {}}
                known -= {"arithmetic", "code"}
                spoiled = spoil(result)
                spoiled["format"] = result["format"]
                text = self.report(spoiled)
                self.check(text)
                self.assertEqual(len(self.svgs(text)), N_PLOTS[name])
                self.assertFalse(pathlib.Path(self.path("touched")).exists())

    def test_an_error_names_file_and_field(self):
        result = json.loads((RESULTS / "serve.json").read_text())
        result["runs"][1]["label"] = 7
        pathlib.Path(self.path("bad.json")).write_text(json.dumps(result))
        self.fail_with(3, ["bench", "report", self.path("bad.json"), "--output", self.path("out")],
                       "bad.json: result: runs[1].label: 7, expected text")
        self.assertEqual(os.listdir(self.path("out")), [])

    def fake_gnuplot(self, script):
        folder = pathlib.Path(self.path("bin"))
        folder.mkdir(exist_ok=True)
        (folder / "gnuplot").write_text("#!/bin/sh\n" + script)
        (folder / "gnuplot").chmod(0o755)
        return "%s:%s" % (folder, os.environ["PATH"])

    def test_a_gnuplot_that_fails_leaves_tables(self):
        for script, why in (("exit 1", "gnuplot failed"), ("echo '<svg>'; exit 0", "drew nothing"),
                            ("kill -9 $$", "gnuplot failed"), ("yes x", "gnuplot did not end")):
            with self.subTest(script):
                text = self.report(RESULTS / "eval.json", PATH=self.fake_gnuplot(script))
                page = self.check(text)
                self.assertEqual(self.svgs(text), [])
                said = " ".join(page.texts)
                self.assertIn("Not drawn: ", said)
                self.assertIn(why, said)
                self.assertIn("word_problem", said)
        junk = "echo '<svg viewBox=<defs><filter></defs><title>gnuplot_ </svg>rgb('"
        self.report(RESULTS / "eval.json", PATH=self.fake_gnuplot(junk))  # ends well

    def test_no_settings_of_a_user_change_plots(self):
        home = pathlib.Path(self.path("home"))
        home.mkdir()
        (home / ".gnuplot").write_text("set terminal dumb\nexit status 3\n")
        self.assertEqual(self.report(RESULTS / "eval.json", HOME=str(home)),
                         self.report(RESULTS / "eval.json"))

    def test_extreme_numbers_break_no_plot(self):
        result = json.loads((RESULTS / "serve.json").read_text())
        for value in (0, 1e308, None):
            with self.subTest(value):
                for run in result["runs"]:
                    for key in ("output_throughput", "p95_ttft_ms", "per_user_tokens_per_s"):
                        run[key] = value
                    run["request_rate"] = value
                self.check(self.report(result))


class Commands(Case):
    """eval and quantize write the page where --report ends in .html."""

    TASK = str(ROOT / "tests/eval/nano_arithmetic.jsonl")

    def read(self, name):
        page = Page(pathlib.Path(self.path(name)).read_text(encoding="utf-8"))
        self.assertEqual(page.errors, [])
        return " ".join(page.texts)

    def test_eval(self):
        result = self.succeed("eval", NANO, "--tasks", self.TASK, "--limit", "3", "-q", "--json",
                              "--report", self.path("page.html"))
        self.assertEqual(json.loads(result.out)["format"], "quern-eval/1")
        text = self.read("page.html")
        self.assertIn("unquantized", text)
        self.assertIn("%d of 3" % json.loads(result.out)["all"]["right"], text)

    def test_eval_looks_for_the_place_before_it_computes(self):
        self.fail_with(1, ["eval", NANO, "--tasks", self.TASK, "--report", "/nowhere/page.html"],
                       "/nowhere/page.html")
        self.fail_with(2, ["eval", NANO, "--tasks", self.TASK, "--resume", "--report",
                           self.path("page.html")], "--resume")

    def test_quantize(self):
        result = self.succeed("quantize", NANO, self.path("out"), "-q", "--json", "--report",
                              self.path("page.html"))
        report = json.loads(result.out)
        self.assertEqual((report["format"], report["source"]), ("quern-quantize/1", NANO))
        self.assertNotIn("tool", report)
        text = self.read("page.html")
        self.assertIn("Quantized to MXFP4", text)
        self.assertIn("routed_expert", text)


if __name__ == "__main__":
    unittest.main()
