#!/usr/bin/env bash
# `make docs`: the documentation as pages in .cache/site. Fails where a link or an anchor leads nowhere, where a page is in no
# menu, where a page would load something from elsewhere, and where a link elsewhere is none; LINKS=1 asks whether there is still
# something behind those. SERVE=1 serves them on 127.0.0.1:8000 instead.
set -euo pipefail
cd "$(dirname "$0")/.."

lock=scripts/locks/docs.lock
venv=.cache/docs-venv
site=${SITE:-$PWD/.cache/site}
export PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_INPUT=1 NO_MKDOCS_2_WARNING=1

if ! cmp --silent "$lock" "$venv/installed.lock"; then
    echo "Fetching what builds the pages (once) …" >&2
    .venv/bin/uv venv --quiet --clear --no-config --python .venv/bin/python "$venv"
    .venv/bin/python -m pip -qq --python "$venv/bin/python" install --require-hashes --only-binary :all: -r "$lock"
    cp "$lock" "$venv/installed.lock"
fi
if [[ -n ${FETCH_ONLY:-} ]]; then exit 0; fi
if [[ -n ${SERVE:-} ]]; then exec "$venv/bin/mkdocs" serve --dev-addr 127.0.0.1:8000 --watch scripts; fi
"$venv/bin/mkdocs" build --strict --clean --site-dir "$site"
# what a browser would load by itself; links that a reader may follow are not meant
if grep --recursive --include='*.html' -nEo '<(script|img|iframe|link|source)[^>]*(src|href)=.?(https?:)?//[^> ]*' "$site" |
    grep -v 'rel=.\?canonical'; then
    echo "docs: these load something from elsewhere" >&2
    exit 1
fi
.venv/bin/python scripts/external_links.py ${LINKS:+--ask}
echo "$(find "$site" -name '*.html' | wc -l) pages: $site/index.html (with their search: make docs SERVE=1)"
