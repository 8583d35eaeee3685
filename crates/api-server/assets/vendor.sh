#!/bin/sh
# Fetches the builds named below from the npm registry and writes them, gzip'd, beside this script.
# Run it to move to other versions; the checksums in NOTICE and the versions here must be changed together.
set -eu
cd "$(dirname "$0")"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

fetch() { # package version file target
    (cd "$work" && npm pack --silent "$1@$2" >/dev/null && mkdir -p "$1" && tar xzf "$(basename "$1")-$2.tgz" -C "$1")
    cp "$work/$1/package/$3" "$work/$4"
}
fetch react 18.3.1 umd/react.production.min.js react.js
fetch react-dom 18.3.1 umd/react-dom.production.min.js react-dom.js
fetch graphiql 4.1.2 graphiql.min.js graphiql.js
fetch graphiql 4.1.2 graphiql.min.css graphiql.css
# The style sheet carries its web fonts; without them it is a tenth of the size and the reader's own fonts are used.
perl -0pi -e 's/\@font-face\s*\{[^}]*\}//g' "$work/graphiql.css"
for file in react.js react-dom.js graphiql.js graphiql.css; do
    gzip -9 -n -c "$work/$file" >"graphiql/$file.gz"
    sha256sum "$work/$file" | sed "s|$work/||"
done
