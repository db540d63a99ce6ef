#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# fetch-debian.sh: packages of any Debian suite, unpacked in a cache, never installed.
#
#   fetch-debian.sh SUITE deb PKG...        those packages and all they depend on, in one root
#   fetch-debian.sh SUITE deb-only PKG...   those packages alone, in one root
#   fetch-debian.sh SUITE source PKG        a source package's upstream tree
#
# prints the folder that holds the result, and nothing else, on stdout. What is in the cache is not
# fetched again, so a second run needs no network.
#
# Tests use this for what they compare with (libvirt's schemas and documents, another QEMU): such
# material is never committed. The archive's address is the one this machine's own apt uses.
# The cache is $TIDEMARK_CACHE, else build/debian beside this script's folder.
#
# Exit: 0 done, 2 usage, 77 cannot be had here (with the reason on stderr), so that a test can skip.
set -eu

usage () { sed -n '/^#   fetch/s/^#   //p' "$0" >&2; exit 2; }
cannot () { echo "fetch-debian.sh: $*" >&2; exit 77; }

[ $# -ge 3 ] || usage
suite=$1 what=$2
shift 2
case $what in deb|deb-only|source) ;; *) usage ;; esac
[ "$what" != source ] || [ $# -eq 1 ] || usage
for word in "$suite" "$@"; do
  case $word in ''|-*|*[!a-z0-9.+-]*) echo "fetch-debian.sh: odd name '$word'" >&2; exit 2 ;; esac
done

here=$(cd "$(dirname "$0")/.." && pwd)
cache=${TIDEMARK_CACHE:-$here/build/debian}
mkdir -p "$cache/$suite"
cache=$(cd "$cache/$suite" && pwd)
name=$what-$(echo "$*" | tr ' ' '_')
if [ ${#name} -gt 200 ]; then # longer names than 255 bytes cannot be had
  name=$what-$1-and-more-$(echo "$*" | sha256sum | cut -c 1-16)
fi
root=$cache/$name
stamp=$root.done

show () {
  if [ "$what" = source ]; then
    for dir in "$root"/*/; do echo "${dir%/}"; return; done
  fi
  echo "$root"
}

if [ -e "$stamp" ]; then show; exit 0; fi

for tool in apt-get dpkg-deb flock; do
  command -v $tool >/dev/null || cannot "no $tool on this machine"
done
keyring=/usr/share/keyrings/debian-archive-keyring.gpg
[ -r $keyring ] || cannot "no $keyring (package debian-archive-keyring)"

# One at a time: tests run in parallel and share the lists.
exec 9>"$cache/lock"
flock 9
if [ -e "$stamp" ]; then show; exit 0; fi

# The archive this machine uses for its own suite: the first URI of a stanza or line that names
# exactly that suite (so not -security or -updates, which lie elsewhere).
own=$(. /etc/os-release && echo "${VERSION_CODENAME:-}")
archive=$(
  cat /etc/apt/sources.list.d/*.sources 2>/dev/null | awk -v own="$own" '
    function done_() { if (hit && uri != "") { print uri; exit } hit = 0; uri = "" }
    /^[ \t]*$/ { done_(); next }
    /^#/ { next }
    tolower($1) == "uris:" { uri = $2 }
    tolower($1) == "suites:" { for (i = 2; i <= NF; i++) if ($i == own) hit = 1 }
    END { if (hit && uri != "") print uri }' | head -n 1
  cat /etc/apt/sources.list /etc/apt/sources.list.d/*.list 2>/dev/null | sed 's/\[[^]]*\]//' |
    awk -v own="$own" '$1 == "deb" && $3 == own { print $2 }'
)
archive=$(echo "$archive" | sed '/^$/d' | head -n 1)
[ -n "$archive" ] || cannot "this machine's apt sources name no archive for its suite '$own'"

apt=$cache/apt
mkdir -p "$apt/lists/partial" "$apt/cache/archives/partial" "$apt/etc"
: > "$apt/status"
{
  echo "deb [signed-by=$keyring] $archive $suite main"
  echo "deb-src [signed-by=$keyring] $archive $suite main"
} > "$apt/sources.list"

apt_get () {
  apt-get -qq -y -o Dir::Etc::SourceList="$apt/sources.list" -o Dir::Etc::SourceParts=/dev/null \
    -o Dir::Etc::Preferences=/dev/null -o Dir::Etc::PreferencesParts=/dev/null \
    -o Dir::State="$apt" -o Dir::State::Lists="$apt/lists" -o Dir::State::status="$apt/status" \
    -o Dir::Cache="$apt/cache" -o Dir::Cache::Archives="$debs" -o APT::Sandbox::User="$(id -un)" \
    -o APT::Get::AllowUnauthenticated=false -o APT::Update::Error-Mode=any \
    -o APT::Install-Recommends=false -o Acquire::Languages=none -o Acquire::Retries=3 \
    -o Acquire::http::Timeout=30 -o Acquire::https::Timeout=30 \
    -o Debug::NoLocking=true "$@" </dev/null >&2 9>&-
}

work=$cache/work
rm -rf "$work" "$root"
debs=$work/debs
mkdir -p "$debs/partial" "$work/root"
trap 'rm -rf "$work"' EXIT
trap 'exit 130' INT TERM

# Lists of yesterday may name files that the archive has since replaced: fetch new ones and try again.
fetch () {
  case $what in
  deb) apt_get install --download-only "$@" ;;
  deb-only) (cd "$debs" && apt_get download "$@") ;;
  source) (cd "$debs" && apt_get source --download-only --tar-only "$@") ;;
  esac
}
if ! [ -e "$apt/updated" ] || ! fetch "$@"; then
  rm -f "$apt/updated"
  apt_get update || cannot "no lists of '$suite' from $archive"
  touch "$apt/updated"
  fetch "$@" || cannot "$* of '$suite' cannot be fetched"
fi

if [ "$what" = source ]; then
  for tar in "$debs"/*.orig.tar.*; do
    case $tar in *.asc) continue ;; esac
    tar -C "$work/root" -xf "$tar" || cannot "$tar cannot be unpacked"
  done
else
  for deb in "$debs"/*.deb; do
    dpkg-deb -x "$deb" "$work/root" || cannot "$deb cannot be unpacked"
  done
fi
mv "$work/root" "$root"
: > "$stamp"
show
