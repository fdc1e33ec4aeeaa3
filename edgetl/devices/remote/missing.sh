#!/bin/sh
# missing.sh CACHE FOLDER <NAMES
# Which of the names, one a line, are not among CACHE's files; or "whole", if FOLDER (below CACHE, may be empty) is there.
if [ -n "$2" ] && [ -d "$1/$2" ]; then
    echo whole
    exit 0
fi
while read -r name; do
    [ -f "$1/files/$name" ] || echo "$name"
done
