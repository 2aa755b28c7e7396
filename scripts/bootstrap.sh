#!/usr/bin/env bash
# Makes .venv what the locks say: `bootstrap.sh run` for the gateway, `bootstrap.sh dev` for its tests too.
#
# Needs Python 3.11 or newer and the registry that pip is configured for; nothing else, root or not. A stamp in .venv
# holds the digest of all that was installed, so a second call only reads it.
set -euo pipefail
cd "$(dirname "$0")/.."

fail() { echo "bootstrap: $*" >&2; exit 1; }
say() { echo "bootstrap: $*" >&2; }

mode=${1:-run}
inputs=(pyproject.toml scripts/bootstrap.sh scripts/locks/build.lock)
case $mode in
    run) locks=(requirements.lock scripts/locks/build.lock) ;;
    dev) locks=(requirements-dev.lock) ;; # holds the other two
    *) fail "run or dev?" ;;
esac
digest=$(cat "${inputs[@]}" requirements.lock requirements-dev.lock | sha256sum)
for stamp in .venv/.installed-dev ".venv/.installed-$mode"; do
    if [[ -f $stamp && $(<"$stamp") == "$digest" ]]; then exit 0; fi
done

find_python() {
    local name
    for name in ${PYTHON:-} python3 python3.13 python3.12 python3.11 python; do
        if "$name" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            echo "$name"
            return
        fi
    done
    fail "Python 3.11 or newer is needed; set PYTHON=/path/to/it if it is not found by its usual names"
}

has_venv() { "$1" -c 'import ensurepip, venv' 2>/dev/null; }

# Debian keeps ensurepip in a package of its own: as root it is installed, else virtualenv does the same job.
make_venv() { # PYTHON
    local version
    version=$("$1" -c 'import sys; print("python%d.%d" % sys.version_info[:2])')
    if ! has_venv "$1" && [[ $(id -u) == 0 ]] && command -v apt-get >/dev/null; then
        say "installing $version-venv"
        export DEBIAN_FRONTEND=noninteractive
        { timeout 300 apt-get update -qq && timeout 300 apt-get install -y -qq --no-install-recommends "$version-venv"; } \
            >/dev/null 2>&1 || true
    fi
    if has_venv "$1"; then
        "$1" -m venv --clear .venv
    elif "$1" -m virtualenv --version >/dev/null 2>&1; then
        "$1" -m virtualenv --quiet --clear .venv
    elif command -v virtualenv >/dev/null; then
        virtualenv --quiet --clear --python "$1" .venv
    elif "$1" -m pip install --quiet --target .cache/virtualenv virtualenv 2>/dev/null; then
        PYTHONPATH=.cache/virtualenv "$1" -m virtualenv --quiet --clear .venv
    elif command -v uv >/dev/null; then
        uv venv --quiet --seed --clear --python "$1" .venv
    else
        fail "$1 cannot make virtual environments: install $version-venv (apt) or virtualenv, then call make again"
    fi
}

if ! .venv/bin/python -c 'import pip' 2>/dev/null; then
    python=$(find_python)
    say "making .venv with $("$python" --version)"
    make_venv "$python"
fi

export PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_INPUT=1
pip=(.venv/bin/python -m pip -qq) # errors only
say "installing what ${locks[*]} list$([[ ${#locks[@]} == 1 ]] && echo s)"
"${pip[@]}" install --require-hashes --only-binary :all: "${locks[@]/#/--requirement=}" ||
    fail "pip could not install the locked packages (its words are above)"
# editable, for its metadata: the command and the backends' entry points
"${pip[@]}" install --no-deps --no-build-isolation --no-index --editable . || fail "pip could not install the project itself"
echo "$digest" >".venv/.installed-$mode"
