#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# tests/bundle.sh BUNDLE.tar.gz: made with --model, it runs where there is nothing but glibc.
set -eu
bundle=$(realpath "$1")
root=$(mktemp -d)
trap 'rm -rf "$root"' EXIT

tar -xzf "$bundle" -C "$root"
name=$(ls "$root")
# Where pages point to is there.
find "$root/$name" -name '*.md' | while read -r page; do
    sed 's/](/\n](/g' "$page" | sed -n 's/^](\([^)#: ]*\)[#)].*/\1/p' | while read -r link; do
        [ -e "$(dirname "$page")/$link" ] || {
            echo "${page#"$root/$name/"}: link to $link, which is not there"
            exit 1
        }
    done
done
# glibc's part of what ldd finds, at its places, and nothing else: no shell, no /etc.
ldd "$root/$name"/bin/* "$root/$name"/lib/* | grep -o '/[^ ]*' | sort -u | while read -r library; do
    case $(basename "$library") in
    ld-linux* | libc.so.* | libm.so.* | libdl.so.* | libpthread.so.* | librt.so.* | libresolv.so.*)
        mkdir -p "$root$(dirname "$library")"
        cp -L "$library" "$root$library"
        ;;
    esac
done
# By this name glibc asks where the program lies; all are in one folder.
mkdir -p "$root/proc/self"
ln -s "/$name/bin/quern" "$root/proc/self/exe"
# In a new user namespace where it is not root who asks.
inside() {
    if [ "$(id -u)" = 0 ]; then
        chroot "$root" "$@"
    else
        unshare --map-root-user chroot "$root" "$@"
    fi
}
inside "/$name/bin/quern" --version
inside "/$name/bin/quern" devices
inside "/$name/bin/quern" run "/$name/models/glm-nano" --temperature 0 \
    -p "Quinn has 30 cookies and gives 2 of them to Kira. How many cookies are left?" >"$root/answer"
cat "$root/answer"
grep -q "The answer is 28." "$root/answer"
if [ -x "$root/$name/bin/golden_cache" ]; then
    # It has what it needs, but for the device.
    inside "/$name/bin/golden_cache" --source "/$name" --device cuda:99 >"$root/answer" 2>&1 && exit 1
    grep -q "ERROR: --device: cuda:99: " "$root/answer"
fi
[ ! -x "$root/$name/bin/gpucheck" ] || inside "/$name/bin/gpucheck" --only rope
