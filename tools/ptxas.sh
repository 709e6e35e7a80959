#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# ptxas without a CUDA toolkit: NVIDIA's own, as it lies in PyPI, into build/ptxas, where a build
# that is configured afterwards finds it.
set -eu
cd "$(dirname "$0")/.."

package=nvidia-cuda-nvcc==13.0.88
program=build/ptxas/nvidia/cu13/bin/ptxas

usage() {
    cat <<END
usage: tools/ptxas.sh [--no-install] [--help]

Puts ptxas of PyPI's $package (under NVIDIA's licence) at $program.
With it kernels for sm_90a are compiled when quern is built, not when it starts on a GPU, and their
registers are held against their budgets by the test gpu_budgets.

  --no-install   fail where it is not there
END
}

may_install=yes
for argument in "$@"; do
    case $argument in
    --no-install) may_install=no ;;
    -h | --help) usage; exit 0 ;;
    *) echo "ptxas.sh: error: $argument: no such option, expected --no-install or --help" >&2; exit 2 ;;
    esac
done

# Last written: says that all of it is there.
[ "$(cat build/ptxas/package 2>/dev/null)" != "$package" ] || exit 0
if [ "$may_install" = no ]; then
    echo "ptxas.sh: error: $program: no $package, expected tools/ptxas.sh without --no-install" >&2
    exit 4
fi
rm -rf build/ptxas
# Debian's python3, for which python3-venv is.
/usr/bin/python3 -m venv build/ptxas/venv
build/ptxas/venv/bin/python -m pip install -q --disable-pip-version-check --retries 10 --timeout 60 \
    --no-deps --target build/ptxas "$package"
"$program" --version >/dev/null
rm -rf build/ptxas/venv
echo "$package" >build/ptxas/package
