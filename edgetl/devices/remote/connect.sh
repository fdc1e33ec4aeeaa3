#!/bin/sh
# connect.sh FOLDER COMMAND...
# Runs here: a connection's ssh, whose socket lies in FOLDER. Whoever started it may be killed without a word; ssh ends
# with it, and then the folder goes.
folder=$1
shift
"$@"
status=$?
rm -rf "$folder"
exit "$status"
