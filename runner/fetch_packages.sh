#!/bin/sh
# Unpacks Debian packages that building the runner needs and this machine does not have, into a folder:
#
#   fetch_packages.sh header FOLDER   onnxruntime_c_api.h, from this release of Debian or the next one
#   fetch_packages.sh arm64 FOLDER    libjpeg, libpng, zlib and libcrypto for arm64, with their headers
#
# They come from wherever this machine's own apt gets its packages, through a private apt configuration: the system's
# package lists and architectures stay as they are, and no root rights are needed.
set -eu

what=${1:-} folder=${2:-}
case $what in
  header) arch=$(dpkg --print-architecture) packages=libonnxruntime-dev ;;
  arm64)
    arch=arm64
    packages="libjpeg62-turbo-dev libjpeg62-turbo libpng-dev libpng16-16 zlib1g-dev zlib1g libssl-dev libssl3"
    ;;
  *)
    echo "usage: fetch_packages.sh header|arm64 FOLDER" >&2
    exit 2
    ;;
esac
[ -n "$folder" ] || { echo "usage: fetch_packages.sh header|arm64 FOLDER" >&2; exit 2; }

# shellcheck source=/dev/null
release=$(. /etc/os-release && echo "${VERSION_CODENAME:-}")
case $release in
  bookworm) next=trixie ;;
  *) next= ;;
esac
[ "$release" = trixie ] && packages=$(echo "$packages" | sed 's/libssl3/libssl3t64/; s/libpng16-16/libpng16-16t64/')

mkdir -p "$folder"
folder=$(cd "$folder" && pwd)
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
mkdir -p "$scratch/state/lists/partial" "$scratch/cache/archives/partial" "$scratch/log" "$scratch/sources" "$scratch/debs"
touch "$scratch/status"
# What begins with "#clear" is no comment: the system's hooks must not see a private apt.
cat >"$scratch/apt.conf" <<CONF
Dir::State "$scratch/state";
Dir::State::status "$scratch/status";
Dir::Cache "$scratch/cache";
Dir::Log "$scratch/log";
Dir::Etc::SourceList "/dev/null";
Dir::Etc::SourceParts "$scratch/sources";
APT::Architecture "$arch";
#clear APT::Architectures;
APT::Architectures { "$arch"; };
#clear APT::Update::Pre-Invoke;
#clear APT::Update::Post-Invoke;
#clear APT::Update::Post-Invoke-Success;
#clear DPkg::Post-Invoke;
APT::Sandbox::User "";
Acquire::Languages "none";
CONF

# The machine's own sources of its own release, and the same of another one.
sources() {
  keyring=/usr/share/keyrings/debian-archive-keyring.gpg
  signed=
  [ -f "$keyring" ] && signed="[signed-by=$keyring]"
  # The format is apt's, which fills it in.
  # shellcheck disable=SC2016
  apt-get indextargets --format '$(REPO_URI) $(RELEASE) $(COMPONENT)' 'Created-By: Packages' | sort -u |
    while read -r uri suite component; do
      [ "$suite" = "$release" ] && echo "deb $signed $uri $1 $component"
    done
}

fetch() {
  sources "$1" >"$scratch/sources/own.list"
  apt-get -c "$scratch/apt.conf" -q update >"$scratch/log/update" 2>&1 || return 1
  # shellcheck disable=SC2086
  (cd "$scratch/debs" && apt-get -c "$scratch/apt.conf" -q download $packages) >"$scratch/log/download" 2>&1
}

fetch "$release" || { [ -n "$next" ] && [ "$what" = header ] && fetch "$next"; } || {
  echo "apt offers no $packages here: $(tail -n 1 "$scratch/log/download" 2>/dev/null)" >&2
  exit 1
}
for package in "$scratch"/debs/*.deb; do dpkg-deb --extract "$package" "$folder"; done
# Links that begin at the root are to lead to what lies in the folder.
find "$folder" -type l | while read -r link; do
  target=$(readlink "$link")
  case $target in /*) ln -sfn "$folder$target" "$link" ;; esac
done
