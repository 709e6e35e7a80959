#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""deploy/: the unit starts what it says and is told how it goes, dashboard and alerts ask for numbers
that there are, and the Debian package holds a service that answers.
"""
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import unittest

from serving import BUILD, LONG_S, Server
from test_cli import NANO, QUERN, QUESTION, ROOT, Case, environment, read_until, start

SMALL = ["--port", "0", "--max-num-seqs", "4", "--page-cache", "64M"]
ASK = {"messages": [{"role": "user", "content": QUESTION}], "temperature": 0}
# Families that are there once there is something to tell of.
LATE = {"quern_accepted_tokens_per_position_total", "quern_kernel_info"}


def text_of(name):
    with open(os.path.join(ROOT, "deploy", name), encoding="utf-8") as file:
        return file.read()


def setting(unit, name):
    return re.search("^%s=(.*)$" % name, unit, re.M)[1]


class Manager:
    """What a service manager hears from a process that it has started."""

    def __init__(self, folder):
        self.path = os.path.join(folder, "notify")
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(self.path)
        self.socket.settimeout(LONG_S)

    def hear(self, word):
        """Messages up to and with the one that has this line."""
        while word not in self.socket.recv(4096).decode().split("\n"):
            pass


class Unit(Case):
    def test_systemd_has_nothing_against_it(self):
        if shutil.which("systemd-analyze") is None:
            self.skipTest("no systemd-analyze")
        unit = text_of("quern.service").replace("/usr/bin/quern", QUERN)
        unit = re.sub("^Documentation=.*$", "", unit, flags=re.M)
        path = self.write("quern.service", unit)
        done = subprocess.run(["systemd-analyze", "verify", path], capture_output=True, text=True,
                              check=False, timeout=LONG_S)
        self.assertEqual((done.returncode, done.stdout + done.stderr), (0, ""))

    def test_little_is_open_to_it(self):
        if shutil.which("systemd-analyze") is None:
            self.skipTest("no systemd-analyze")
        done = subprocess.run(
            ["systemd-analyze", "security", "--offline=true", "--threshold=15",  # exposure 1.5
             os.path.join(ROOT, "deploy/quern.service")], capture_output=True, text=True,
            check=False, timeout=LONG_S)
        self.assertEqual(done.returncode, 0, done.stdout[-200:])

    def test_times_of_the_manager_are_longer_than_the_programs_own(self):
        unit = text_of("quern.service")
        page = self.succeed("help", "serve").out
        default = {name: int(re.search(r"--%s S.*?\(default\s+(\d+)" % name, page, re.S)[1])
                   for name in ("shutdown-timeout", "watchdog-timeout")}
        self.assertGreater(int(setting(unit, "TimeoutStopSec")), default["shutdown-timeout"])
        self.assertGreater(int(setting(unit, "WatchdogSec")), default["watchdog-timeout"])

    def test_the_manager_is_told(self):
        manager = Manager(self.folder)
        self.addCleanup(manager.socket.close)
        config = json.loads(text_of("quern.json"))
        config["model"] = NANO
        words = setting(text_of("quern.service"), "ExecStart").split()
        self.assertEqual(words[0], "/usr/bin/quern")
        words[words.index("/etc/quern/quern.json")] = self.write("quern.json", json.dumps(config))
        server = start(*words[1:], *SMALL, env=environment(
            NOTIFY_SOCKET=manager.path, WATCHDOG_USEC="200000"))
        manager.hear("READY=1")
        manager.hear("WATCHDOG=1")
        server.send_signal(signal.SIGTERM)
        manager.hear("STOPPING=1")
        _, err = server.communicate()
        self.assertEqual(server.returncode, 0, err)


class Packages(unittest.TestCase):
    def test_each_list_has_what_a_build_needs(self):
        def words(name):
            with open(os.path.join(ROOT, name), encoding="utf-8") as file:
                return set(re.findall(r"[\w.+-]+", file.read()))
        with open(os.path.join(ROOT, "quickstart"), encoding="utf-8") as file:
            lists = dict(re.findall('^(\\w*packages)="(.*)"$', file.read(), re.M))
        needed = {word for word in lists["packages"].split() if re.fullmatch("lib.*-dev", word)}
        self.assertIn("libcurl4-gnutls-dev", needed)
        for name in ("check", "deploy/Containerfile"):  # the others measure CPUs
            self.assertEqual(set(lists["gpu_packages"].split()) - words(name), set(), name)
        for name in ("check", "deploy/Containerfile", "bench/peer.sh", "bench/quality.sh",
                     "bench/quantize.sh"):
            self.assertEqual(needed - words(name), set(), name)


class Pod(Case):
    def test_its_arguments_start_a_server_and_its_times_allow_a_drain(self):
        pod = text_of("kubernetes.yaml")
        flags = re.findall(r"^            - (--\S+)", pod, re.M)
        keys = self.write("keys", "secret\n")
        os.chmod(keys, 0o400)
        self.assertIn("--api-key-file=/etc/quern/keys", flags)
        flags = [flag.replace("/etc/quern/keys", keys) for flag in flags]
        with Server(*SMALL[2:], *flags) as server:
            self.assertEqual(server.get("/v1/models")[0], 401)
            for probe in re.findall(r"httpGet: {path: (/\w+)", pod):
                self.assertEqual(server.get(probe)[0], 200)
        drain = int(re.search(r"--shutdown-timeout=(\d+)", pod)[1])
        wait = int(re.search(r'command: \["sleep", "(\d+)"\]', pod)[1])
        self.assertGreater(int(re.search(r"PeriodSeconds: (\d+)", pod)[1]), drain + wait)

    def test_keys_are_readable_by_it(self):
        pod = text_of("kubernetes.yaml")
        # A secret's files are root's, of the group fsGroup.
        self.assertIn("defaultMode: 0440", pod)
        self.assertEqual(re.search(r"^ +fsGroup: (\d+)", pod, re.M)[1],
                         re.search(r"^ +runAsUser: (\d+)$", pod, re.M)[1])

    def test_nobody_scrapes_without_a_key(self):
        self.assertNotIn("prometheus.io", text_of("kubernetes.yaml"))


class Numbers(Case):
    def test_of_dashboard_and_alerts_are_there(self):
        with Server(*SMALL[2:]) as server:
            for _ in range(2):
                self.assertEqual(server.post("/v1/chat/completions", ASK)[0], 200)
            page = server.get("/metrics")[2].decode()
        families = set(re.findall(r"^# TYPE (\S+)", page, re.M)) | LATE
        dashboard = json.loads(text_of("grafana.json"))
        asked = [target["expr"] for panel in dashboard["panels"] for target in panel.get("targets", [])]
        asked += re.findall("expr: (.*(?:\n {10}.*)*)", text_of("alerts.yml"))
        self.assertGreater(len(asked), 40)
        for expression in asked:
            for name in re.findall(r"\b(?:quern|process)_\w+", expression):
                self.assertIn(name.removesuffix("_bucket"), families, expression)
            if "refused_total" in expression:  # probes while it loads are no fault
                self.assertIn('endpoint!="/ready"', expression)

    def test_panels_stand_beside_each_other(self):
        taken, ids = set(), set()
        for panel in json.loads(text_of("grafana.json"))["panels"]:
            at = panel["gridPos"]
            self.assertLessEqual(at["x"] + at["w"], 24)
            cells = {(x, y) for x in range(at["x"], at["x"] + at["w"])
                     for y in range(at["y"], at["y"] + at["h"])}
            self.assertFalse(cells & taken, panel["title"])
            self.assertNotIn(panel["id"], ids)
            taken |= cells
            ids.add(panel["id"])

    def test_prometheus_takes_them(self):
        if shutil.which("promtool") is None:
            self.skipTest("no promtool")
        subprocess.run(["promtool", "check", "config", os.path.join(ROOT, "deploy/prometheus.yml")],
                       check=True, capture_output=True, timeout=LONG_S)


class Package(Case):
    """Made, unpacked, installed and removed in a folder of its own."""

    def make(self):
        if shutil.which("dpkg-deb") is None:
            self.skipTest("no dpkg")
        done = subprocess.run(["cpack", "-B", self.path("made")], cwd=BUILD, capture_output=True,
                              text=True, check=False, timeout=600)
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        made = [name for name in os.listdir(self.path("made")) if name.endswith(".deb")]
        self.assertEqual(len(made), 1)
        return os.path.join(self.path("made"), made[0])

    def dpkg(self, *arguments):
        root = self.path("root")
        return subprocess.run(
            ["dpkg", "--root=" + root, "--log=" + self.path("dpkg.log"), "--force-not-root",
             "--force-script-chrootless", "--force-depends", *arguments], capture_output=True,
            text=True, check=False, timeout=LONG_S, env=environment(PATH=os.environ["PATH"]))

    def test_holds_a_service_that_answers_and_goes_again(self):
        package = self.make()
        depends = subprocess.run(["dpkg-deb", "--field", package, "Depends"], check=True, text=True,
                                 capture_output=True, timeout=LONG_S).stdout
        for name in re.findall(r"(lib[\w.+-]+)", depends):
            if name != "libc6":
                self.assertIn(name, text_of("Containerfile").split("FROM")[-1].split(), name)
        for folder in ("updates", "info", "triggers"):
            os.makedirs(os.path.join(self.path("root"), "var/lib/dpkg", folder))
        self.write("root/var/lib/dpkg/status", "")
        done = self.dpkg("--install", package)
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        with open(self.path("root/etc/quern/quern.json"), encoding="utf-8") as file:
            config = json.load(file)
        for path in ("/usr/lib/systemd/system/quern.service", "/usr/share/man/man1/quern-serve.1.gz",
                     config["model"] + "/config.json"):
            self.assertTrue(os.path.isfile(self.path("root" + path)), path)
        # What it would answer at its place, from this one.
        server = start("serve", "--config", self.path("root/etc/quern/quern.json"), "--model",
                       self.path("root" + config["model"]), *SMALL,
                       program=self.path("root/usr/bin/quern"))
        url = re.search(r"http://\S+", read_until(server.stdout, b"\n"))[0]
        answer = subprocess.run(["curl", "-sS", url + "/v1/chat/completions", "-d", json.dumps(ASK)],
                                check=True, capture_output=True, timeout=LONG_S)
        self.assertIn("42", json.loads(answer.stdout)["choices"][0]["message"]["content"])
        server.terminate()
        _, err = server.communicate()
        self.assertEqual(server.returncode, 0, err)
        self.assertEqual(self.dpkg("--remove", "quern").returncode, 0)
        self.assertFalse(os.path.exists(self.path("root/usr/bin/quern")))
        self.assertTrue(os.path.exists(self.path("root/etc/quern/quern.json")))  # of the administrator
        self.assertEqual(self.dpkg("--purge", "quern").returncode, 0)
        self.assertFalse(os.path.exists(self.path("root/etc/quern")))


if __name__ == "__main__":
    unittest.main()
