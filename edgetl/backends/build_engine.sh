#!/bin/sh
# Build a TensorRT engine with trtexec, on the device that will run it: build_engine.py's twin for a device whose Python
# lacks TensorRT. Copy it with model.onnx to the device and run `sh build_engine.sh`. It needs trtexec of TensorRT 10 or
# 11 (JetPack 6.1 and newer), sha256sum and an NVIDIA GPU. Prints one JSON object.
#
# The engine's name is the one that build_engine.py gives it; an engine whose checksum lies beside it is used again.
set -eu

# Shapes of the network's inputs that have open axes: the least, the usual ones, and the most; empty where none has.
least='image:1x224x224x3'
usual='image:BATCHx224x224x3'
most='image:BATCHx224x224x3'

here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
model=$here/model.onnx out=$here batch=1 workspace=0 sm='' rebuild=0 partial='' fresh_cache=''

fail() {
    printf '%s\n' "$1" >&2
    exit 1
}

usage() {
    cat <<'END'
usage: sh build_engine.sh [--model FILE] [--out FOLDER] [--batch N] [--workspace-mb N] [--sm NN] [--rebuild]

  --batch N         largest batch, and the one to optimise for (1)
  --workspace-mb N  most scratch memory, MiB; 0: TensorRT's default
  --sm NN           compute capability without its dot, where neither the device tree nor nvidia-smi tells it
  --rebuild         build even if an engine is there
TRTEXEC names the program where it is neither on PATH nor in /usr/src/tensorrt/bin.
END
}

need_number() {
    case $2 in '' | *[!0-9]*) fail "$1 takes a number, not '$2'" ;; esac
}

while [ $# -gt 0 ]; do
    case $1 in
        -h | --help) usage; exit 0 ;;
        --rebuild) rebuild=1; shift; continue ;;
        --model | --out | --batch | --workspace-mb | --sm) [ $# -ge 2 ] || fail "$1 needs a value" ;;
        *) usage >&2; fail "unknown option $1" ;;
    esac
    case $1 in
        --model) model=$2 ;;
        --out) out=$2 ;;
        --batch) need_number "$1" "$2"; batch=$2 ;;
        --workspace-mb) need_number "$1" "$2"; workspace=$2 ;;
        --sm) need_number "$1" "$2"; sm=$2 ;;
    esac
    shift 2
done

find_trtexec() {
    if [ -n "${TRTEXEC:-}" ]; then
        [ -x "$TRTEXEC" ] || fail "TRTEXEC names $TRTEXEC, which is no program"
        printf '%s' "$TRTEXEC"
    elif command -v trtexec; then
        :
    elif [ -x /usr/src/tensorrt/bin/trtexec ]; then
        printf '%s' /usr/src/tensorrt/bin/trtexec
    else
        fail "no trtexec here: install JetPack's tensorrt package, or name it in TRTEXEC"
    fi
}

# trtexec's first line holds [TensorRT v100300]: two digits each for minor and patch, and one for the minor before 10.
version_of() {
    number=$("$1" --help 2>&1 | sed -n 's/.*\[TensorRT v\([0-9]*\)\].*/\1/p' | head -n 1)
    [ -n "$number" ] || fail "$1 does not tell its TensorRT version"
    [ "$number" -ge 100000 ] || fail "TensorRT 10 or newer is needed, this is v$number: install JetPack 6.1 or newer"
    printf '%d.%d.%d' $((number / 10000)) $((number / 100 % 100)) $((number % 100))
}

capability() {
    tree=''
    [ ! -r /proc/device-tree/compatible ] || tree=$(tr '\0' ' ' </proc/device-tree/compatible)
    case $tree in
        *nvidia,tegra234*) printf 87; return ;;
        *nvidia,tegra264*) printf 110; return ;;
    esac
    told=$(nvidia-smi --query-gpu=compute_cap --format=csv,noheader 2>/dev/null | head -n 1 | tr -d '. ') || told=''
    case $told in
        '' | *[!0-9]*) fail "no NVIDIA GPU was found: run this on the device, or give its compute capability with --sm" ;;
    esac
    printf '%s' "$told"
}

release() {
    if [ -r /etc/nv_tegra_release ]; then
        told=$(sed -n 's/^# R\([0-9]*\) (release), REVISION: \([0-9.]*\).*/l4t\1.\2/p' /etc/nv_tegra_release)
        printf '%s' "${told:-l4t-unknown}"
    else
        printf '%s-%s' "$(uname -s)" "$(uname -m)" | tr '[:upper:]' '[:lower:]'
    fi
}

# A Jetson's model, or the GPU's: some of one compute capability differ in cores and memory.
gpu() {
    told=''
    [ ! -r /proc/device-tree/model ] || told=$(tr -d '\0\n' </proc/device-tree/model)
    [ -n "$told" ] || told=$(nvidia-smi --query-gpu=name --format=csv,noheader 2>/dev/null | head -n 1) || told=''
    printf '%s' "${told:-unknown}"
}

digest() {
    sha256sum <"$1" | cut -c 1-64
}

sized() {
    printf '%s' "$1" | sed "s/:BATCHx/:${batch}x/g"
}

quoted() {
    printf '"%s"' "$(printf '%s' "$1" | sed 's/[\\"]/\\&/g')"
}

[ -f "$model" ] || fail "there is no $model: copy the whole folder of the bundle"
trtexec=$(find_trtexec)
version=$(version_of "$trtexec")
[ -n "$sm" ] || sm=$(capability)
system=$(release)
gpu=$(gpu)
model_sha256=$(digest "$model")
machine=$(printf 'trt%s-sm%s-%s-%s' "$version" "$sm" "$gpu" "$system" | tr -c 'A-Za-z0-9._-' '_')
limit=''
[ "$workspace" = 0 ] || limit=-w$workspace
engine=$out/model-$machine-b$batch$limit-$(printf '%s' "$model_sha256" | cut -c 1-16).engine
timings=$out/timing-$machine.cache

started=$(date +%s)
reused=true
if [ "$rebuild" = 1 ] || [ ! -f "$engine" ] || [ "$(digest "$engine")" != "$(cat "$engine.sha256" 2>/dev/null)" ]; then
    reused=false
    mkdir -p "$out"
    partial=$out/.build.$$.partial fresh_cache=$out/.timing.$$.partial
    trap 'rm -f "$partial" "$partial.sha256" "$fresh_cache"' EXIT
    trap 'exit 130' INT
    trap 'exit 143' TERM
    [ ! -f "$timings" ] || cp "$timings" "$fresh_cache"
    set -- --onnx="$model" --saveEngine="$partial" --timingCacheFile="$fresh_cache" --skipInference
    # TensorRT 11 knows no other kind of network.
    case $version in 10.*) set -- "$@" --stronglyTyped ;; esac
    if [ -n "$least" ]; then
        set -- "$@" --minShapes="$least" --optShapes="$(sized "$usual")" --maxShapes="$(sized "$most")"
    fi
    [ "$workspace" = 0 ] || set -- "$@" --memPoolSize="workspace:$workspace"
    "$trtexec" "$@" >&2 || fail "trtexec could not build the engine: see its messages above"
    [ -s "$partial" ] || fail "trtexec wrote no engine: see its messages above"
    rm -f "$engine.sha256"
    digest "$partial" >"$partial.sha256"
    mv "$partial" "$engine"
    mv "$partial.sha256" "$engine.sha256"
    [ ! -s "$fresh_cache" ] || mv "$fresh_cache" "$timings"
fi

printf '{"engine": %s, "bytes": %d, "reused": %s, "build_seconds": %d, "module": "trtexec", "tensorrt": "%s", ' \
    "$(quoted "$engine")" "$(wc -c <"$engine")" "$reused" $(($(date +%s) - started)) "$version"
printf '"compute_capability": "%s", "gpu": %s, "system": "%s", "batch": %d, "model_sha256": "%s"}\n' \
    "${sm%?}.${sm#"${sm%?}"}" "$(quoted "$gpu")" "$system" "$batch" "$model_sha256"
