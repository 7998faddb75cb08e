#!/bin/sh
# `make install` and `make uninstall`. With DESTDIR only files are written there (for a package); without,
# the running system is told too. Nothing is started, and an agent that runs is not disturbed.
set -eu
cd "$(dirname "$0")/.."
PREFIX=${PREFIX:-/usr/local} DESTDIR=${DESTDIR:-} BINARY=${BINARY:-bin/baton}
case $PREFIX in
/usr | /usr/local) lib=$PREFIX/lib unit=$lib/systemd/system/baton.service sysusers=$lib/sysusers.d/baton.conf ;;
*) unit=/etc/systemd/system/baton.service sysusers=/etc/sysusers.d/baton.conf ;; # systemd looks nowhere else
esac
bin=$PREFIX/bin/baton
bash=$PREFIX/share/bash-completion/completions/baton
zsh=$PREFIX/share/zsh/site-functions/_baton
defaults=/etc/default/baton

# systemd tells whether the system itself is meant, and systemd runs it.
systemd() { [ -z "$DESTDIR" ] && [ -d /run/systemd/system ]; }

# put MODE PATH writes standard input there in one step: a program that runs keeps its old file, and an agent
# that is started in this moment finds a whole one.
put() {
	mkdir -p "$DESTDIR${2%/*}"
	cat >"$DESTDIR$2.new"
	chmod "$1" "$DESTDIR$2.new"
	mv -f "$DESTDIR$2.new" "$DESTDIR$2"
}

# completion SHELL PATH writes what the binary says, if it can run here and knows that shell.
completion() {
	if text=$("$BINARY" completion "$1" 2>/dev/null) && [ -n "$text" ]; then
		echo "$text" | put 644 "$2"
	fi
}

install_all() {
	put 755 "$bin" <"$BINARY"
	sed "s|@BIN@|$PREFIX/bin|" scripts/systemd/baton.service | put 644 "$unit"
	put 644 "$sysusers" <scripts/systemd/sysusers.conf
	[ -e "$DESTDIR$defaults" ] || put 644 "$defaults" <scripts/systemd/default
	completion bash "$bash"
	completion zsh "$zsh"
	[ -z "$DESTDIR" ] || return 0
	if command -v systemd-sysusers >/dev/null; then
		systemd-sysusers "$sysusers"
	fi
	echo "installed $bin and $unit"
	if ! systemd; then
		echo "systemd does not run here: start \"$bin agent\" by what does, again whenever it ends"
		return 0
	fi
	systemctl daemon-reload
	own=/etc/systemd/system/baton.service
	[ "$unit" = $own ] || [ ! -e $own ] || echo "$own is used in its place: remove it, unless it is meant so"
	if systemctl --quiet is-active baton; then
		echo "the agent that runs is the former one: systemctl restart baton (nothing moves)"
	else
		echo "next, when /etc/baton/cluster.yaml and the key are there: systemctl enable --now baton"
	fi
}

uninstall_all() {
	if systemd; then
		echo "stopping the agent: what it serves moves to other nodes first"
		systemctl --quiet disable --now baton 2>/dev/null || true # not there, or not enabled
		! systemctl --quiet is-active baton || { echo "the agent does not stop; nothing is removed" >&2; exit 1; }
	fi
	if [ -z "$DESTDIR" ] && [ -x "$bin" ] && [ -e /etc/baton/cluster.yaml ]; then
		OPTIONS=
		[ ! -e "$defaults" ] || . "$defaults"
		"$bin" agent --dismantle $OPTIONS || {
			echo "nothing is removed; without /etc/baton/cluster.yaml the gate is left in the kernel" >&2
			exit 1
		}
	fi
	rm -f "$DESTDIR$bin" "$DESTDIR$unit" "$DESTDIR$sysusers" "$DESTDIR$bash" "$DESTDIR$zsh"
	left=
	if cmp -s scripts/systemd/default "$DESTDIR$defaults"; then
		rm -f "$DESTDIR$defaults"
	elif [ -e "$DESTDIR$defaults" ]; then
		left=" $defaults, which was changed;"
	fi
	if systemd; then
		systemctl daemon-reload
		systemctl reset-failed baton 2>/dev/null || true # it has not failed
	fi
	[ -z "$DESTDIR" ] || return 0
	echo "removed; left here:$left /etc/baton (file and key), /var/lib/baton (data: by it the cluster knows this node again), the group baton"
}

case ${1:-} in
install) install_all ;;
uninstall) uninstall_all ;;
*)
	echo "usage: make install | make uninstall" >&2
	exit 2
	;;
esac
