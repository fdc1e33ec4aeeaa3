#!/bin/sh
# run.sh CACHE LINES CODE SECONDS COMMAND...
# One call of edgetl.runtime, in a scratch folder of its own that goes when it ends.
#
#   CACHE    edgetl's cache folder
#   LINES    of samples.txt, which come on standard input
#   CODE     import path of edgetl
#   SECONDS  after which the command ends itself; empty for never
#
# Prints the last line of the command's answer, and then outputs.npz, if it wrote one. Standard input stays open for as
# long as somebody waits for the answer: when it ends, the command and its children are killed, and what they left is
# removed. The names of the variables are those of edgetl/devices/process.py.
cache=$1 lines=$2 code=$3 seconds=$4
shift 4
scratch=$(mktemp -d "$cache/calls/$$.XXXXXX") || exit 1

# shellcheck disable=SC2317 # the trap calls it
# A release that was not finished, and the folders above it that it leaves empty.
remove() {
    rm -rf "$1"
    rmdir "${1%/*}" "${1%/*/*}" 2>/dev/null
}

# shellcheck disable=SC2317 # the trap calls it
clean() {
    if [ -f leftovers ]; then
        while read -r folder; do remove "$folder"; done <leftovers
    fi
    cd /
    rm -rf "$scratch"
}

trap clean EXIT
trap 'exit 129' HUP INT TERM PIPE
cd "$scratch" || exit 1
if [ "$lines" -gt 0 ]; then
    head -n "$lines" >samples.txt || exit 1
fi

exec 3<&0
PYTHONPATH=$code EDGETL_PROGRESS=1 EDGETL_DEADLINE=$seconds EDGETL_LEFTOVERS=$scratch/leftovers EDGETL_GROUP=1 \
    "$@" </dev/null >answer &
command=$!
(
    cat <&3
    kill -s TERM -- "-$command" || kill "$command"
    sleep 2
    kill -s KILL -- "-$command" || kill -s KILL "$command"
) >/dev/null 2>&1 &
watcher=$!
exec 3<&-
wait "$command"
status=$?
kill "$watcher" 2>/dev/null
if [ "$status" -eq 0 ]; then
    tail -n 1 answer
    [ ! -f outputs.npz ] || cat outputs.npz
fi
exit "$status"
