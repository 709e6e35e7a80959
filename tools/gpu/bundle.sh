#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# quern for a machine that has a driver and nothing else: one archive with the libraries that it needs.
set -eu
build=$(realpath -m "${QUERN_BUILD:-$(dirname "$0")/../../build/release}")
output=""
model=no
usage() {
    cat <<END
usage: tools/gpu/bundle.sh [--model] [--output FILE] [--help]

Makes quern-VERSION-linux-ARCH.tar.gz: bin/quern, bin/gpucheck and bin/golden_cache (where tests are
built), in lib/ all libraries that they need but for glibc's, their licences, tools/gpu, configs/, docs/ and
docs/gpu.md as README.md. It runs wherever it is unpacked, on a glibc that is no older than the one said at the end.

  --model        with models/glm-nano (42 MB) and the problems that golden_cache asks it
  --output FILE  instead of build/release/quern-VERSION-linux-ARCH.tar.gz

QUERN_BUILD: a build folder, where it is not build/release.
END
}

while [ $# -gt 0 ]; do
    case $1 in
    --model) model=yes ;;
    --output)
        [ $# -gt 1 ] || { usage >&2; exit 2; }
        output=$(realpath -m "$2")
        shift ;;
    -h | --help) usage; exit 0 ;;
    *) usage >&2; exit 2 ;;
    esac
    shift
done

cd "$(dirname "$0")/../.."
[ -r "$build/build.ninja" ] || {
    echo "bundle.sh: error: $build/build.ninja: not there, expected cmake to have made it" >&2
    exit 2
}
log=$(mktemp)
work=$(mktemp -d)
trap 'rm -rf "$log" "$work"' EXIT
programs=quern_bundled
for name in gpucheck unit_device_cuda golden_cache; do # not in a build without tests or kernels
    ! grep -q "^build tests/$name: " "$build/build.ninja" || programs="$programs $name"
done
cmake --build "$build" --target $programs >"$log" 2>&1 || {
    cat "$log" >&2
    exit 1
}
version=$("$build/bundled/quern" --version | cut -d ' ' -f 2)
name=quern-$version-linux-$(uname -m)
output=${output:-$build/$name.tar.gz}
root=$work/$name
mkdir -p "$root/bin" "$root/lib" "$root/licences" "$root/tools/gpu"
for program in $programs; do
    case $program in
    quern_bundled) strip -o "$root/bin/quern" "$build/bundled/quern" ;;
    *) strip -o "$root/bin/$program" "$build/tests/$program" ;;
    esac
done

# Of a library: the package, which knows its files with and without /usr.
package_of() {
    real=$(realpath "$1")
    { dpkg-query -S "$real" 2>/dev/null || dpkg-query -S "${real#/usr}"; } | head -1 | sed 's/[:,].*//'
}

ldd "$root"/bin/* | sed -n 's/.* => \(\/[^ ]*\) .*/\1/p' | sort -u >"$work/libraries"
while read -r library; do
    package=$(package_of "$library")
    [ "$package" != libc6 ] || continue # the machine's own: its loader has to fit
    strip --strip-unneeded -o "$root/lib/$(basename "$library")" "$library"
    cp "/usr/share/doc/$package/copyright" "$root/licences/$package"
done <"$work/libraries"
cp -r /usr/share/common-licenses "$root/licences/" # to which these refer
cp tools/gpu/common.sh tools/gpu/check.sh tools/gpu/sanitize.sh tools/gpu/bench.sh tools/gpu/profile.sh \
    tools/gpu/trace.c "$root/tools/gpu"
cp LICENSE "$root"
cp -r configs "$root" # shapes for quern tune and profile.sh --whole
# The pages, and where they point to.
cp -r --parents docs ARCHITECTURE.md CHANGELOG.md CONTRIBUTING.md data/prices.json data/references.json \
    tests/mock/README.md "$root"
sed 's|](\([^):#]*\.md\)|](docs/\1|g' docs/gpu.md >"$root/README.md"
if [ "$model" = yes ]; then
    mkdir "$root/models"
    cp -r models/glm-nano "$root/models/"
    mkdir -p "$root/tests/eval"
    cp tests/eval/nano_*.jsonl "$root/tests/eval"
fi
glibc=$(objdump -T "$root"/bin/* "$root"/lib/* | grep -o 'GLIBC_[0-9.]*' | sort -uV | tail -1)
tar --sort=name --owner=0 --group=0 --numeric-owner -C "$work" -czf "$output" "$name"
"$root/bin/quern" --version
echo "$output: $(du -h "$output" | cut -f 1), ${glibc#GLIBC_} or later of glibc"
