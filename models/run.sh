#!/bin/sh
# Checks the models exhaustively, then that each planted bug is caught. Needs spin and gcc.
# usage: models/run.sh [lease|tenure|pair|voters|grow|length|sync]...
# One line per run, as they end: which of how many it is, model, switches, verdict, states,
# seconds. In the environment:
#   SHORT=1   only the short set: what is quick, of the models of what is built
#   JOBS=n    runs at a time (default: processors, but not more than the memory holds)
#   MEMORY=n  megabytes per run (default: 14000, with SHORT 4000)
#   TRAIL=n   prints the last n lines of each counterexample as well
set -u
here=$(cd "$(dirname "$0")" && pwd)
MEMORY=${MEMORY:-$([ -n "${SHORT:-}" ] && echo 4000 || echo 14000)}

# check N MODEL EXPECT SWITCHES...   carries the run of line N out. It fails where the verdict is not the one expected.
check() {
	number=$1 model=$2 expect=$3; shift 3
	d=$(mktemp -d -p "$WORK") && cp "$here/$model.pml" "$d/m.pml" || return 1
	start=$(date +%s)
	# Long searches need less memory, at twice the time. A short one ends before the optimiser has paid.
	flags="-O2 -DCOLLAPSE"
	if [ -n "${SHORT:-}" ]; then
		flags=-O2
		[ "$expect" = safe ] || flags=-O1
	fi
	(cd "$d" && spin -a "$@" m.pml >spin.out 2>&1 && gcc $flags -w -DSAFETY -DMEMLIM="$MEMORY" -o pan pan.c &&
		./pan -m5000000 -n >pan.out 2>&1)
	errors=$(sed -n 's/.*errors: \([0-9]*\).*/\1/p' "$d/pan.out")
	states=$(sed -n 's/^ *\([0-9.e+]*\) states, stored.*/\1/p' "$d/pan.out" | tail -1)
	verdict="FAILED TO RUN"
	if grep -q 'max search depth too small\|out of memory\|reached -DMEMLIM' "$d/pan.out"; then verdict="NOT EXHAUSTIVE"
	elif [ "$errors" = 0 ]; then verdict=safe
	elif [ -n "$errors" ]; then verdict=caught; fi
	mark=ok; [ "$verdict" = "$expect" ] || mark=UNEXPECTED
	printf '%3s of %s  %-7s %-45s %-7s %10s states %4ss  %s\n' "$number" "$TOTAL" "$model" "$*" "$verdict" "$states" "$(($(date +%s) - start))" "$mark"
	if [ "$verdict" = caught ] && [ -n "${TRAIL:-}" ]; then (cd "$d" && spin -t -p -g "$@" m.pml | tail -n "$TRAIL"); fi
	[ "$verdict" != "FAILED TO RUN" ] || cat "$d"/*.out
	rm -rf "$d"
	[ "$mark" = ok ]
}
if [ "${1:-}" = -check ]; then
	shift
	check "$@"
	exit
fi

# Each line below is a run: MODEL EXPECT SWITCHES..., EXPECT being "safe" or "caught". "fast" ones are in the
# short set too.
fast() { echo "$*"; }
one() { [ -n "${SHORT:-}" ] || echo "$*"; }

lease() {
	fast lease safe   -DL=2
	fast lease caught -DREACH          # not vacuous: B does get to serve
	one lease safe   -DCOUNTDOWN      # "r left", counted down by B, scaled by (1+rho)
	one lease safe   -DSENDTRUE       # a promise from the true instant of sending would do too; no clock can tell it
	fast lease caught -DNOGRACE        # restarted voter has no grace
	fast lease caught -DNOWAIT         # evictor does not wait
	fast lease caught -DQLONE          # q too small for the lease
	fast lease caught -DQEONE          # q too small for the eviction
	fast lease caught -DSENDSTAMP      # promise counted from the sender's time stamp, clocks apart
	fast lease caught -DSTALENOW       # promise counted from a clock read before the heartbeat came
	fast lease caught -DACKTIME        # lease counted from receipt of the ack
	fast lease caught -DNORHO          # promise without (1+rho)
	one lease caught -DCOUNTDOWN -DNOSCALE  # "r left" counted down without (1+rho)
	fast lease caught -DNOBOOTID       # acks do not name the process start
	fast lease caught -DSAYATAPPEND    # statement names (term, index) of an appended, uncommitted Evict
	fast lease caught -DRELGATE        # pause between "what is left" and a relative kernel timeout
	one lease caught -DRELCAS         # the same, written as delete+add
}

tenure() {
	fast tenure safe   -DN=4
	one tenure caught -DN=5 -DREACH
	one tenure safe   -DADMITEARLY -DN=4   # harmless here: statements name the lease number
	fast tenure caught -DN=5 -DONLYLAST           # only the tenure just before e has to be over
	fast tenure caught -DN=5 -DKEEPOWNER          # Evict does not end the tenures, so an Admit revives them
	fast tenure caught -DN=5 -DRELVOLATILE        # Released was said but not on disk
	fast tenure caught -DN=5 -DEPOCHVOLATILE      # activated epoch not on disk: a restart replays an older owner state
	fast tenure caught -DN=5 -DEARLYNUM           # a lease number used before its Admit is applied
	one tenure safe   -DN=4 -DBOOTS -DR=1        # nodes reboot: no run record, another boot
	fast tenure caught -DN=4 -DBOOTS -DANYBOOT    # a lease number outlives the reboot
	one tenure caught -DN=5 -DBOOTS -DR=1 -DBOOTRANDOM  # any other boot id ends tenures, also a late one
	one tenure caught -DN=5 -DFENCELATE          # Fenced{node} without a lease number, logged late
}

pair() {
	for f in "" "-DFENCE"; do                    # register; fence
		one pair safe $f
		one pair safe $f -DYIELD
		one pair safe $f -DARB -DVMAX=2      # the list of arbiters changes
		for r in 1 2 3 4; do one pair caught $f -DREACH=$r; done   # not vacuous
		for r in 6 7; do one pair caught $f -DYIELD -DREACH=$r; done
		one pair caught $f -DARB -DVMAX=2 -DREACH=8
		for b in EARLYADD COMMITAFTER NONVOTER; do one pair caught $f -D$b; done
		for b in FORGETYIELD YIELDLATE; do one pair caught $f -DYIELD -D$b; done
		for b in ARBAPPEND ARBAPPLY; do one pair caught $f -DARB -DVMAX=2 -D$b; done
	done
	one pair safe   -DVMAX=4
	one pair safe   -DFENCE -DVMAX=5
	one pair safe   -DYIELD -DYIELDCLAIMS
	one pair safe   -DFENCE -DHOLDLATE
	one pair safe   -DFENCE -DFORGETMET
	one pair safe   -DFENCE -DJOINMET
	one pair safe   -DRESTS                      # `rests` in place of the joiner's grace: safe, but
	one pair safe   -DRESTS -DREACH=5            # a joiner that reboots then never takes its dead peer's groups
	one pair caught -DREACH=5
	one pair safe   -DFENCE -DREACH=5
	for b in NOWAITTAKE TWOREG ASSUMEWON ANYFROM MIXED LATEAPPLY NORECORD HOLDREG; do one pair caught -D$b; done
	one pair caught -DRESTS -DNORESTS
	for b in AMNESIA HEARD ACKASKING FORGETSTOP; do one pair caught -DFENCE -D$b; done
	one pair caught -DFENCE -DYIELD -DYIELDACTS
	for b in ARBNOGRACE HOLDPENDING; do one pair caught -DFENCE -DARB -DVMAX=2 -D$b; done
}

voters() {
	R="-DN=3 -DSKEW=0 -DINIT=7 -DRAFT"
	fast voters safe -DN=4 -DSKEW=0
	one voters safe -DN=3
	one voters safe $R
	fast voters caught -DN=4 -DREACH=3            # not vacuous
	one voters caught -DN=4 -DSKEW=0 -DLIVE=3
	fast voters caught $R -DNOEVIDENCE            # no wait, no `rests`
	fast voters caught $R -DTIMED                 # a wait of L(1+rho) between changes instead of `rests`
	one voters caught $R -DTIMED -DBACKLOG=1     # the wait, and promises only to nodes in the voter's own set or the one before
	fast voters caught $R -DEVICTOVER             # evicted taken for over
	fast voters caught $R -DNORECORD              # `rests` forgotten by an agent restart
	fast voters caught $R -DSAYATAPPLY            # `rests` said when the set is applied
	one voters caught $R -DSWAP                  # one voter replaced in one step
	fast voters caught -DN=2 -DSKEW=0 -DINIT=7 -DRAFT -DLOSTDISK  # an empty disk answers as its former incarnation
	fast voters caught -DN=2 -DINIT=7 -DRAFT -DNOGRACE
}

grow() {
	for f in "" "-DFENCE"; do                    # register; fence
		one grow safe   $f -DN=3 -DTMAX=3
		one grow safe   $f -DTHREE -DN=3 -DTMAX=3
		one grow caught $f -DN=3 -DTMAX=2 -DREACH=1          # not vacuous: W counts
		one grow caught $f -DTHREE -DN=3 -DTMAX=2 -DREACH=2  # -W, `Pair`, alone
		one grow caught $f -DN=3 -DTMAX=2 -DALONEINLOG       # goes alone although +W is in its log
		for b in SKIPPAIR PAIRAPPEND NOPROOF NOTDURABLE DROPVOTES EARLY; do one grow caught $f -DTHREE -DN=3 -DTMAX=3 -D$b; done
	done
	one grow safe   -DN=4 -DTMAX=3
	one grow safe   -DTHREE -DN=4 -DTMAX=3
	one grow safe   -DTHREE -DN=3 -DTMAX=3 -DRECEIVED    # +W and `Pair` taken for committed on receipt: safe, quicker
	one grow safe   -DN=3 -DTMAX=3 -DRECEIVED
	one grow safe   -DFENCE -DTHREE -DN=3 -DTMAX=3 -DRECEIVED
	one grow safe   -DLEASE -DFENCE -DN=2 -DTMAX=2 -DRECEIVED
	one grow safe   -DLEASE -DTHREE -DN=3 -DTMAX=2 -DRECEIVED
	one grow safe   -DTHREE -DN=3 -DTMAX=3 -DNOVIEW      # no view in packets of W: Raft's terms do it
	one grow caught -DN=4 -DTMAX=2 -DREACH=3             # full circle
	one grow caught -DN=3 -DTMAX=3 -DREACH=4             # +W dropped on joining, then again
	one grow caught -DTHREE -DN=3 -DTMAX=2 -DREACH=5
	one grow safe   -DLEASE -DN=3 -DTMAX=2
	one grow safe   -DLEASE -DTHREE -DN=3 -DTMAX=2
	one grow safe   -DLEASE -DFENCE -DN=2 -DTMAX=2
	one grow safe   -DLEASE -DFENCE -DTHREE -DN=3 -DTMAX=2
	one grow safe   -DLEASE -DTHREE -DN=3 -DTMAX=2 -DNORESTS -DPAIRGRACE  # grace at `Pair` in place of `rests`
	one grow safe   -DLEASE -DN=2 -DTMAX=2 -DNOGRACE     # a register: nobody holds, so +W needs no grace
	one grow caught -DLEASE -DN=2 -DTMAX=2 -DREACH=6     # B takes over among three
	one grow caught -DLEASE -DTHREE -DN=3 -DTMAX=2 -DREACH=7  # and alone
	one grow caught -DLEASE -DTHREE -DN=3 -DTMAX=2 -DNORESTS
	for b in NOGRACE EVICTOK HOLDINLOG; do one grow caught -DLEASE -DFENCE -DN=2 -DTMAX=2 -D$b; done
}

length() {
	fast length safe
	fast length caught -DREACH                    # not vacuous
	fast length caught -DLIVE
	fast length caught -DOWNLENGTH                # the voter promises its own L, not the one named
	fast length caught -DGRACESTATE               # grace after a restart of the L in the state, not the longest noted
	fast length caught -DCURLEN                   # the owner counts an ack with its present L
	fast length caught -DLATERACK                 # a later, shorter heartbeat's ack backs an earlier, longer one
	one length caught -DTWOSTEP                  # promises lengthen first, leases after, nothing named
	one length caught -DTWOSTEP -DGUARDALL -DAPPLIEDSTAYS
}

sync() {
	one sync safe   -DN=4 -DR=3
	one sync safe   -DN=6 -DR=3 -DNOREPLAY
	one sync safe   -DNN=3 -DSTART2 -DN=3 -DR=2 -DNOREPLAY -DQUIET
	one sync caught -DSTART1 -DN=4 -DR=5 -DNOREPLAY -DREACH    # not vacuous: a former primary is back in sync and promoted
	one sync caught -DN=4 -DR=3 -DREACH2                       # degraded and serving after a failover
	for b in REMOVEFIRST HOLDDEGRADE OUTSIDE VERDICTREAD CANCELACK RESTARTOPEN; do one sync caught -DN=4 -DR=3 -D$b; done
	for b in ADDEARLY CAUGHTEARLY NOFLAG GENVOLATILE; do one sync caught -DN=4 -DR=3 -DSTART0 -D$b; done
	one sync caught -DN=6 -DR=2 -DSTART0 -DNOREPLAY -DNOGEN
	one sync caught -DN=4 -DR=3 -DNOREPLAY -DWIPEEARLY
	for b in REJOINEARLY DIVERGED; do one sync caught -DSTART1 -DN=4 -DR=5 -DNOREPLAY -D$b; done
	one sync caught -DN=3 -DR=3 -DNOTCLOSED
	one sync caught -DN=6 -DR=3 -DNOREPLAY -DNOEPOCHNAME
	one sync caught -DN=4 -DR=4 -DTLIREUSE
	one sync caught -DNN=3 -DSTART2 -DN=3 -DR=2 -DNOREPLAY -DQUIET -DONEVIEW
	one sync caught -DNN=3 -DSTART2 -DN=2 -DR=2 -DNOREPLAY -DANYMIX
	one sync caught -DNN=3 -DQUORUM -DN=2 -DR=2 -DNOREPLAY -DQOPENEARLY -DQUNSEALED  # each alone did no harm
}

[ $# -gt 0 ] || set -- lease tenure pair voters grow length sync
for part in "$@"; do
	case $part in
	lease | tenure | pair | voters | grow | length | sync) ;;
	*) echo "there is no model $part" >&2; exit 2 ;;
	esac
done
for tool in spin gcc; do
	command -v "$tool" >/dev/null || { echo "$tool is missing (Debian: apt-get install spin gcc)" >&2; exit 1; }
done
if [ -z "${JOBS:-}" ]; then
	JOBS=$([ -n "${TRAIL:-}" ] && echo 1 || nproc)
	fit=$(($(sed -n 's/^MemAvailable: *\([0-9]*\) kB/\1/p' /proc/meminfo) / 1024 / MEMORY))
	[ "$JOBS" -le "$fit" ] || JOBS=$((fit > 0 ? fit : 1))
fi
WORK=$(mktemp -d) || exit 1
trap 'rm -rf "$WORK"' EXIT
trap 'exit 130' INT TERM
export WORK MEMORY
for part in "$@"; do "$part"; done | awk '{ print NR, $0 }' >"$WORK/runs"
TOTAL=$(wc -l <"$WORK/runs")
export TOTAL
xargs -r -P "$JOBS" -L 1 sh "$here/run.sh" -check <"$WORK/runs" || { echo "a model did not come out as expected" >&2; exit 1; }
