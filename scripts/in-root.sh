#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# in-root.sh: runs a command of this source tree within the root of another Debian release.
#
#   in-root.sh ROOT COMMAND...
#
# ROOT is what fetch-debian.sh has unpacked: packages that were never configured. What that would
# have made and programs rely on (users, the cache of libraries) is made here; the users are this
# machine's, and so are the libraries that build/tidemark needs and a newer release has no more. The
# source tree, /tmp, /dev/shm, /dev, /proc and /sys are the machine's own; everything happens in a
# mount namespace that ends with the command. Needs root.
set -eu

[ $# -ge 2 ] || { sed -n '/^#   in-root/s/^#   //p' "$0" >&2; exit 2; }
root=$(cd "$1" && pwd)
shift
tree=$(cd "$(dirname "$0")/.." && pwd)
if [ "${IN_ROOT_NAMESPACE:-}" != yes ]; then
  IN_ROOT_NAMESPACE=yes exec unshare -m --propagation private "$0" "$root" "$@"
fi
unset IN_ROOT_NAMESPACE

cp /etc/passwd /etc/group "$root/etc/"
[ -L "$root/var/run" ] || { rm -rf "$root/var/run" && ln -s /run "$root/var/run"; }
for folder in bin sbin lib lib64; do
  [ -e "$root/$folder" ] || ln -s "usr/$folder" "$root/$folder"
done
mkdir -p "$root/run"
mount --bind "$root" "$root"
for folder in dev dev/shm proc sys tmp; do
  mkdir -p "$root/$folder"
  mount --bind "/$folder" "$root/$folder"
done
mount -t tmpfs -o mode=755 tmpfs "$root/run"
mkdir -p "$root$tree"
mount --bind "$tree" "$root$tree"
ldconfig -r "$root"
lent=$root/usr/local/lib
mkdir -p "$lent"
ldd "$tree/build/tidemark" 2>/dev/null | awk '$2 == "=>" { print $1, $3 }' |
  while read -r name path; do
    case $path in "$tree"/*) continue ;; esac
    ldconfig -r "$root" -p | grep -q "^	$name " || cp "$path" "$lent/$name"
  done
ldconfig -r "$root"
exec chroot "$root" /usr/bin/env -C "$tree" PATH=/usr/sbin:/usr/bin:/sbin:/bin "$@"
