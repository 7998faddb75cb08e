#!/bin/sh
# Installs what building and testing need and this machine lacks. Quiet when nothing is missing.
# usage: scripts/deps.sh [PROGRAM:PACKAGE]...   what else is needed
set -eu
need=""
for pair in nft:nftables ip:iproute2 ping:iputils-ping curl:curl gcc:gcc make:make systemctl:systemd "$@"; do
	command -v "${pair%%:*}" >/dev/null 2>&1 || [ -x "/usr/sbin/${pair%%:*}" ] || need="$need ${pair##*:}"
done
[ -n "$need" ] || exit 0
if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null 2>&1; then
	echo "missing:$need (install them: the demo and the tests need them)" >&2
	exit 0
fi
echo "installing:$need" >&2
apt-get update -qq >/dev/null
DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $need >/dev/null
