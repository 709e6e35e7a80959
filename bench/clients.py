#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The running half of bench/clients.sh: bench/clients.py PROGRAM, one of aiperf and guidellm.

glm-nano's tokenizer is put where they look for one, into a Hugging Face cache of our own.
"""
import os
import pathlib
import subprocess
import sys
import tempfile

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "tests/e2e"))
from serving import NANO, ROOT, Server  # noqa: E402

N_REQUESTS, REVISION = 20, "0" * 40


def make_cache(folder):
    """Its environment."""
    model = pathlib.Path(folder) / "hub/models--local--glm-nano"
    (model / "refs").mkdir(parents=True)
    (model / "snapshots").mkdir()
    (model / "refs/main").write_text(REVISION)
    (model / "snapshots" / REVISION).symlink_to(os.path.join(ROOT, NANO))
    return {**os.environ, "HF_HOME": folder, "HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}


def command(program, url, folder):
    """What runs."""
    if os.path.basename(program) == "aiperf":
        return [program, "profile", "--model", "glm-nano", "--url", url, "--endpoint-type", "chat",
                "--streaming", "--tokenizer", "local/glm-nano", "--concurrency", "4",
                "--request-count", str(N_REQUESTS), "--isl", "64", "--osl", "32", "--extra-inputs",
                "ignore_eos:true", "--ui", "none", "--artifact-dir", folder]
    return [program, "run", "--backend", "kind=openai_http,target=%s,model=glm-nano" % url,
            "--profile", "kind=concurrent,streams=[4]", "--constraint",
            "kind=max_requests,count=%d" % N_REQUESTS, "--data",
            "kind=synthetic_text,prompt_tokens=64,output_tokens=32", "--tokenizer",
            "kind=huggingface_auto,model=local/glm-nano", "--output",
            "kind=json,path=%s/result.json" % folder, "--disable-console-interactive"]


def main(program):
    """Returns the exit status."""
    with tempfile.TemporaryDirectory() as folder, Server("--served-model-name", "glm-nano") as server:
        status = subprocess.run(command(program, server.url, folder), env=make_cache(folder),
                                timeout=500, check=False).returncode
        n_ended = server.metrics()['quern_requests_ended_total{finish="length"}']
    print("%s: exit status %d, %d of %d answers" % (program, status, n_ended, N_REQUESTS))
    return 0 if status == 0 and n_ended >= N_REQUESTS else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
