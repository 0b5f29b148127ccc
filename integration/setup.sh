#!/usr/bin/env bash
# Installs what the integration tests and the benchmarks need: Debian packages,
# BuildKit built from its module, and the base images' layers. It may be called
# again at any time and then does only what is missing. Nothing is started.
#
#   COOPER_TEST_CACHE   where it keeps things, ~/.cache/cooper-test by default
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
cache=${COOPER_TEST_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/cooper-test}
mkdir -p "$cache/bin" "$cache/layers"
exec 9>"$cache/lock"
flock 9

say() { echo "setup: $*"; }

# quietly runs a command and shows its output only if it fails.
quietly() {
    local log
    log=$(mktemp)
    if ! "$@" >"$log" 2>&1; then
        cat "$log" >&2
        rm -f "$log"
        return 1
    fi
    rm -f "$log"
}

need=()
wants() { command -v "$1" >/dev/null 2>&1 || [ -x "/usr/sbin/$1" ] || need+=("$2"); }
wants dockerd docker.io
wants runc runc
wants skopeo skopeo
wants umoci umoci
wants buildah buildah
wants podman podman
wants docker-registry docker-registry
wants mmdebstrap mmdebstrap
wants newuidmap uidmap
wants strace strace
wants setpriv util-linux
wants xz xz-utils
wants bzip2 bzip2
wants zstd zstd
wants setcap libcap2-bin
wants git git
wants ssh-agent openssh-client
# The dynamic and the static busybox exclude each other, so ask for the package.
dpkg-query -W -f='${Status}' busybox-static 2>/dev/null | grep -q 'ok installed' || need+=(busybox-static)
if [ ${#need[@]} -gt 0 ]; then
    if [ "$(id -u)" != 0 ]; then
        echo "setup: as root: apt-get install ${need[*]}" >&2
        exit 1
    fi
    say "installing ${need[*]}"
    export DEBIAN_FRONTEND=noninteractive
    # Packages with a service would try to start it: the tests start their own.
    policy=/usr/sbin/policy-rc.d
    if [ ! -e "$policy" ]; then
        printf '#!/bin/sh\nexit 101\n' >"$policy"
        chmod +x "$policy"
        trap 'rm -f "$policy"' EXIT
    fi
    quietly apt-get update -qq
    quietly apt-get install -y -qq --no-install-recommends "${need[@]}"
fi

# An ordinary user with a range of subordinate ids, for the tests without root.
if [ "$(id -u)" = 0 ] && ! id cooper-test >/dev/null 2>&1; then
    say "adding the user cooper-test"
    useradd --create-home --shell /bin/sh cooper-test
fi

# made NAME STAMP tells whether NAME was made from STAMP before.
made() { [ "$(cat "$cache/$1.stamp" 2>/dev/null)" = "$2" ]; }
mark() { echo "$2" >"$cache/$1.stamp"; }

stamp=$(cat "$here/tools/buildkit/go.mod" "$here/tools/buildkit/go.sum" | sha256sum | cut -c1-16)
if ! made buildkit "$stamp" || [ ! -x "$cache/bin/buildkitd" ] || [ ! -x "$cache/bin/buildctl" ]; then
    say "building buildkitd and buildctl (some minutes the first time)"
    (cd "$here/tools/buildkit" && CGO_ENABLED=0 quietly go build -trimpath -ldflags="-s -w" -o "$cache/bin/" \
        github.com/moby/buildkit/cmd/buildkitd github.com/moby/buildkit/cmd/buildctl)
    mark buildkit "$stamp"
fi

# The node image gets this machine's node where it is one program and a tree of
# npm beside it, as NodeSource packs it; otherwise Debian's own packages.
include=ca-certificates
if [ -x /usr/bin/node ] && [ -d /usr/lib/node_modules/npm ]; then
    node=$(/usr/bin/node --version)
else
    node=debian
fi

if ! made debian "bookworm $include" || [ ! -s "$cache/layers/debian.tar.gz" ]; then
    say "making the Debian base layer"
    quietly mmdebstrap --variant=minbase --include="$include" bookworm "$cache/layers/debian.tmp.tar"
    gzip -1 -n <"$cache/layers/debian.tmp.tar" >"$cache/layers/debian.tar.gz.tmp"
    rm "$cache/layers/debian.tmp.tar"
    mv "$cache/layers/debian.tar.gz.tmp" "$cache/layers/debian.tar.gz"
    mark debian "bookworm $include"
fi

if ! made node "$node 2" || [ ! -s "$cache/layers/node.tar.gz" ]; then
    say "making the Node base layer ($node)"
    stage=$(mktemp -d)
    mkdir -p "$stage/usr/bin" "$stage/usr/lib/node_modules" "$stage/usr/etc" "$stage/etc/ssl/certs"
    if [ "$node" = debian ]; then
        quietly mmdebstrap --variant=minbase --include="$include,nodejs,npm" bookworm "$stage/all.tar"
        gzip -1 -n <"$stage/all.tar" >"$cache/layers/node.tar.gz.tmp"
    else
        cp /usr/bin/node "$stage/usr/bin/node"
        cp -r /usr/lib/node_modules/npm "$stage/usr/lib/node_modules/npm"
        ln -s ../lib/node_modules/npm/bin/npm-cli.js "$stage/usr/bin/npm"
        ln -s ../lib/node_modules/npm/bin/npx-cli.js "$stage/usr/bin/npx"
        # Packages may come through this machine's own certificate authority.
        cp /etc/ssl/certs/ca-certificates.crt "$stage/etc/ssl/certs/ca-certificates.crt"
        echo 'cafile=/etc/ssl/certs/ca-certificates.crt' >"$stage/usr/etc/npmrc"
        tar -C "$stage" --sort=name --owner=0 --group=0 --numeric-owner --mtime=2024-01-01 -cf - etc usr \
            | gzip -1 -n >"$cache/layers/node.tar.gz.tmp"
    fi
    rm -rf "$stage"
    mv "$cache/layers/node.tar.gz.tmp" "$cache/layers/node.tar.gz"
    mark node "$node 2"
fi
# The image that Cooper's own Dockerfile builds on: this machine's Go toolchain,
# and the modules that Cooper needs, so that nothing is fetched while it builds.
go_stamp="$(go version) $(sha256sum <"$here/../go.sum" | cut -c1-16) 1"
if ! made golang "$go_stamp" || [ ! -s "$cache/layers/golang.tar.gz" ]; then
    say "making the Go base layer"
    stage=$(mktemp -d)
    mkdir -p "$stage/usr/local/go" "$stage/go/pkg/mod"
    root=$(go env GOROOT)
    for part in bin lib pkg src go.env VERSION; do
        [ -e "$root/$part" ] && cp -r "$root/$part" "$stage/usr/local/go/$part"
    done
    # What this machine has downloaded already comes from its own cache.
    (cd "$here/.." && GOPROXY="file://$(go env GOMODCACHE)/cache/download,$(go env GOPROXY)" GOFLAGS=-modcacherw \
        GOMODCACHE="$stage/go/pkg/mod" quietly go mod download)
    tar -C "$stage" --sort=name --owner=0 --group=0 --numeric-owner --mtime=2024-01-01 -cf - go usr \
        | gzip -1 -n >"$cache/layers/golang.tar.gz.tmp"
    rm -rf "$stage"
    mv "$cache/layers/golang.tar.gz.tmp" "$cache/layers/golang.tar.gz"
    mark golang "$go_stamp"
fi
say "all there, in $cache"
