#!/bin/sh
# What a connection runs for as long as it lives. Makes edgetl's cache folder, removes what calls left that were killed
# with all that watched them, says where the cache is, and then waits until the other side is gone.
cache=$HOME/.cache/edgetl
mkdir -p "$cache/files" "$cache/bundles" "$cache/code" "$cache/calls" || exit 1
for call in "$cache"/calls/*; do
    process=${call##*/}
    kill -0 "${process%%.*}" 2>/dev/null || rm -rf "$call"
done
printf 'edgetl-ready %s\n' "$cache" && cat >/dev/null
