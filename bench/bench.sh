#!/bin/sh
# `make bench`: compile mock and load, run whatever is installed, write REPORT.md and its plots. FULL=1: the figures to quote.
# ARGS: more for run.py (ARGS="--gateways sluice,nginx"). BEFORE=COMMIT: ours in turn with that commit, and nothing else.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
cache=$here/../.cache
out=$cache/bench
mkdir -p "$out"
for program in mock load; do
    "${CC:-cc}" -O2 -Wall -Wextra -o "$out/$program" "$here/$program.c"
done
if [ "${FULL:-}" ]; then
    set -- --rounds 3 --tries 3 --max-noise 6
else
    set -- --rounds 1 --tries 2 --max-noise 15 --scale 0.3 --warmup 1.5
fi
[ "$(id -u)" != 0 ] || set -- "$@" --nice -10
report=$here/REPORT.md
scaling=sluice,sluice-ndjson,nginx,envoy,smg,rolter
git -C "$here" worktree remove --force "$out/before" 2>/dev/null || rm -rf "$out/before"
if [ "${BEFORE:-}" ]; then
    git -C "$here" worktree prune
    git -C "$here" worktree add --quiet --detach "$out/before" "$BEFORE"
    report=$out/before.md
    scaling=
    set -- "$@" --rounds 5 --gateways before,sluice,before-ndjson,sluice-ndjson --scenarios small,short,burst,paced200,lowrate
fi
# a distribution's Python is built with profile-guided optimization, one from a version manager seldom is: a tenth dearer
version='import sys; print(*sys.version_info[:2])'
if [ -x /usr/bin/python3 ] && [ "$(/usr/bin/python3 -c "$version")" = "$("$here/../.venv/bin/python" -c "$version")" ]; then
    # what .venv does not need where its Python is newer than 3.11.2, but the lock holds
    sed -n "/^async-timeout/,/[^\\]\$/{s/ ;.*' / /;p}" "$here/../requirements.lock" >"$out/more.txt"
    if [ -d "$out/packages" ] ||
        "$here/../.venv/bin/python" -m pip install -qq --require-hashes --target "$out/packages" -r "$out/more.txt"; then
        set -- "$@" --python /usr/bin/python3
    fi
fi
plotter=$cache/peers/floor/bin/python
[ ! -x "$plotter" ] || set -- "$@" --plot-python "$plotter"
# shellcheck disable=SC2086 # ARGS are several words
python3 -B "$here/run.py" --spin --scaling "$scaling" \
    --bin "$out" --peers "$cache/peers" --json "$out/last.json" --report "$report" "$@" ${ARGS:-}
[ "$report" != "$here/REPORT.md" ] || python3 -B "$here/../scripts/bench_picture.py"
