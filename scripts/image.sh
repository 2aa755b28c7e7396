#!/usr/bin/env bash
# The image of deploy/Dockerfile by buildah, from what is committed; beside it what is in it and how it was made.
#
# BASE=NAME@sha256:…  another base, best by its digest
# BASE=bootstrap      a stand-in for the base, made of Debian's packages: where no registry of images is reachable. Not to be shipped
# IMAGE=NAME          the name that it gets (sluice-gateway); its tag is the version
# OUT=DIRECTORY       where the files go (dist/image)
# PIP_INDEX_URL, PIP_CERT: as for pip. Inside a container: STORAGE_DRIVER=vfs BUILDAH_ISOLATION=chroot, as root.
set -euo pipefail
cd "$(dirname "$0")/.."
limit=120000000 # bytes over the base
image=${IMAGE:-sluice-gateway}
out=${OUT:-dist/image}
python=.venv/bin/python

command -v buildah >/dev/null || { echo "make image needs buildah (Debian's package of that name)" >&2; exit 1; }
[[ -z $(git status --porcelain) ]] || echo "make image: the image is made of the last commit; what is not committed is not in it" >&2

work=$(mktemp -d)
containers=()
end() {
    for container in "${containers[@]}"; do buildah rm "$container" >/dev/null || true; done
    rm -rf "$work"
}
trap end EXIT

commit=$(git rev-parse HEAD)
epoch=$(git log -1 --format=%ct)
mkdir -p "$work/context" "$out"
git -c tar.umask=0022 archive HEAD | tar -x -C "$work/context"
version=$(sed -n 's/^version = "\(.*\)"/\1/p' "$work/context/pyproject.toml" | head -1)

bootstrap() { # a base of Debian's Python; kept as localhost/sluice-base
    buildah inspect --type image localhost/sluice-base >/dev/null 2>&1 && return
    command -v debootstrap >/dev/null || { echo "BASE=bootstrap needs debootstrap, as root" >&2; exit 1; }
    debootstrap --variant=minbase --include=python3,python3-venv,ca-certificates bookworm "$work/base" ${MIRROR:-} >"$work/log" 2>&1 ||
        { tail -5 "$work/log" >&2; exit 1; }
    rm -rf "$work"/base/{var/cache/apt,var/lib/apt/lists,var/log,proc,sys,dev}/*
    local container
    container=$(buildah from scratch)
    containers+=("$container")
    buildah add --quiet "$container" "$work/base" / >/dev/null
    buildah commit --quiet "$container" localhost/sluice-base >/dev/null
    rm -rf "$work/base"
}

base=${BASE:-$(sed -n 's/^ARG BASE=//p' deploy/Dockerfile)}
if [[ $base == bootstrap ]]; then
    bootstrap
    base=localhost/sluice-base
else
    buildah pull --quiet "$base" >/dev/null
fi
base_digest=$(buildah inspect --type image --format '{{.FromImageDigest}}' "$base")

options=(--build-arg "BASE=$base")
[[ -z ${PIP_INDEX_URL:-} ]] || options+=(--build-arg "PIP_INDEX_URL=$PIP_INDEX_URL")
# a file that the base has: another place would stay in the image, empty
authorities=/etc/ssl/certs/ca-certificates.crt
[[ -z ${PIP_CERT:-} ]] || options+=(--volume "$PIP_CERT:$authorities:ro" --build-arg "PIP_CERT=$authorities")
# the format docker has a health check, OCI's has none
buildah build --quiet --pull-never --layers=false --format docker --timestamp "$epoch" "${options[@]}" \
    --label "org.opencontainers.image.revision=$commit" --label "org.opencontainers.image.version=$version" \
    --file "$work/context/deploy/Dockerfile" --ignorefile "$work/context/deploy/Dockerfile.dockerignore" \
    --tag "$image:$version" "$work/context"

# the same without what differs at each build, in the place of what was built
mkdir "$work/pushed"
buildah push --quiet "$image:$version" "docker-archive:$work/built.tar:$image:$version"
built=$(buildah inspect --type image --format '{{.FromImageID}}' "$image:$version")
settled=$("$python" scripts/image_papers.py settle "$work/built.tar" "$out/sluice-gateway.tar")
rm "$work/built.tar"
if [[ $built != "$settled" ]]; then
    buildah pull --quiet "docker-archive:$out/sluice-gateway.tar" >/dev/null
    buildah rmi "$built" >/dev/null 2>&1 || true # not where another name still has it
fi
# what any registry will call it
buildah push --quiet --digestfile "$work/digest" "$image:$version" "dir:$work/pushed"
rm -rf "$work/pushed"

mounted() {
    local container
    container=$(buildah from --pull-never "$1")
    containers+=("$container")
    mount=$(buildah mount "$container")
}
mounted "$base"
before=$(du -sxb "$mount" | cut -f1)
mounted "$image:$version"
over=$(($(du -sxb "$mount" | cut -f1) - before))

"$python" scripts/image_papers.py bill "$mount" "$version" "$epoch" >"$out/sluice-gateway.cdx.json"
"$python" scripts/image_papers.py provenance "$work/context" "$commit" "$base" "$base_digest" "$(cat "$work/digest")" "$image:$version" \
    "$out/sluice-gateway.tar" "$out/sluice-gateway.cdx.json" >"$out/sluice-gateway.provenance.json"

echo "$image:$version, $((over / 1000000)) MB over $base, $(cat "$work/digest"); $out"
if ((over > limit)); then
    echo "make image: more than $((limit / 1000000)) MB over the base" >&2
    exit 1
fi
