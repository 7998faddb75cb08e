package gate

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"

	"baton/internal/core/cluster"
)

// Group is what one group's gate guards on this node. No address and no port may stand in two groups.
type Group struct {
	ID        cluster.GroupID
	Addresses []netip.Addr
	Ports     []cluster.Port
}

// State is what the kernel holds of one group's gate.
type State struct {
	Group cluster.GroupID
	Epoch cluster.Epoch
	// Deadline is in nanoseconds of CLOCK_BOOTTIME; zero or one that is past means closed.
	Deadline int64
}

var (
	// ErrStaleEpoch says that a higher epoch of the group was seen: the caller must give up the role.
	ErrStaleEpoch = errors.New("a newer epoch of the group was seen")
	// ErrUnknownGroup says that the group is not guarded: Guard did not name it.
	ErrUnknownGroup = errors.New("the group is not guarded")
	// ErrOff says that a gate was told to close and is not known to be shut: others have taken something of it off, which
	// is put back at once, or the kernel does not say in time. The caller tries again.
	ErrOff = errors.New("the gate is not known to be whole: others have taken something of it off, which is put back now, or the kernel does not answer")
	// ErrClosed says that the gate was used after Close or Remove.
	ErrClosed = errors.New("the gate is no longer held by this process")
)

// Gate lets traffic reach a group's addresses and ports only before a deadline that the kernel keeps.
// Its methods may be called from several goroutines.
type Gate interface {
	// Guard makes exactly these groups guarded. New ones begin closed, those that stay keep their
	// deadline and epoch, those no longer named are no longer guarded and their epochs forgotten: whoever
	// drops a group has stopped it. On an error some of it may be done; call it again.
	Guard(groups []Group) error
	// Set stores one group's absolute deadline, in nanoseconds of CLOCK_BOOTTIME; zero closes at once.
	// It returns ErrStaleEpoch for an epoch below the highest seen, ErrUnknownGroup, and ErrOff for a close.
	Set(group cluster.GroupID, epoch cluster.Epoch, deadlineBoottime int64) error
	// Left returns what the kernel holds now, sorted by group: right after Open, what a dead
	// predecessor left. A group is in it until a Guard that does not name it. With nftables deadlines
	// are computed from what is left of a timeout, so that they are up to 20 ms too early.
	Left() ([]State, error)
	// Sweep guards interfaces that appeared since, and puts back what someone else took off. It is
	// also driven by the kernel's news of interfaces, so callers need it only now and then.
	Sweep() error
	// Look looks for what others took off and nobody tells of, without waiting: what is missing is put back by a
	// goroutine of the gate. To be called often, by who is awake anyway.
	Look()
	// Describe names the mechanism: "ebpf tcx", "ebpf clsact", "nftables", or two of them where one can't be everywhere.
	Describe() string
	// Why says why it is not a better mechanism, or "".
	Why() string
	// Close ends this process's hold. Everything stays attached, so that the gate closes at its
	// deadline; a later Open takes it over.
	Close() error
	// Remove detaches and deletes everything of this gate: from then on nothing is guarded.
	Remove() error
}

// Names for Options.Prefer.
const (
	PreferEBPF     = "ebpf"   // at tcx if that can be had, else at clsact
	PreferClsact   = "clsact" // eBPF, not at tcx
	PreferNFTables = "nftables"
)

// Options says whose gate to open.
type Options struct {
	// Cluster and Node make the gate's identity in the kernel: a successor with the same pair takes over.
	Cluster string
	Node    string
	// Prefer names the only mechanism to try; empty tries eBPF, then nftables.
	Prefer string
	// SharedHost says that other nodes' agents have gates in this network namespace too. It is for
	// trying things out with ports: each node must have ports of its own, and clients must use another
	// address than a loopback one, where ports are not judged. Addresses are not supported then, since
	// every node's gate judges the packets of all.
	SharedHost bool
	// Dir is where the gate has a bpffs of its own, which it mounts: a directory on a file system that ends with
	// the boot. What is pinned there keeps the gate shut without this process. Without it tcx is not used.
	Dir string
	// Off is told when others have taken something of the gate off: why, and "" once it is put back. It is called by
	// goroutines of the gate, and by Sweep; it must not wait, and not call the gate.
	Off func(why string)
	// Log gets what happens outside any call; nil drops it.
	Log *slog.Logger
}

// Limits that keep the kernel's tables small; more is refused by Guard.
const (
	maxGroups    = 1024 // 500 that a file may name, and as many that a revision has taken away
	maxAddresses = 4096
	maxPorts     = 4096
	maxNameBytes = 100 // of a group's name
)

// Open opens this node's gate in the calling thread's network namespace, and takes over what a
// predecessor left there, after which Set and Left work at once. Nothing stays attached before the first
// Guard. The error names the cause for each mechanism tried.
func Open(opts Options) (Gate, error) {
	if opts.Cluster == "" || opts.Node == "" {
		return nil, fmt.Errorf("open gate: cluster %q and node %q must both be named", opts.Cluster, opts.Node)
	}
	if opts.Log == nil {
		opts.Log = slog.New(slog.DiscardHandler)
	}
	switch opts.Prefer {
	case PreferEBPF, PreferClsact, PreferNFTables, "":
	default:
		return nil, fmt.Errorf("open gate: unknown mechanism %q; there are %q, %q and %q", opts.Prefer, PreferEBPF, PreferClsact, PreferNFTables)
	}
	var causes []error
	if opts.Prefer != PreferNFTables {
		g, err := openClsact(opts)
		if err == nil {
			return relieve(g, opts, leftTables, openTables)
		}
		causes = append(causes, fmt.Errorf("ebpf: %w", err))
	}
	if opts.Prefer != PreferEBPF && opts.Prefer != PreferClsact {
		g, err := openTables(opts)
		if err == nil {
			g.(*tables).why = errors.Join(causes...)
			return relieve(g, opts, leftClsact, openClsact)
		}
		causes = append(causes, fmt.Errorf("nftables: %w", err))
	}
	return nil, fmt.Errorf("open gate: no mechanism works here: %w", errors.Join(causes...))
}

// identity returns the text that marks everything of this gate in the kernel, and its hash. The hash
// is over both names with a separator, so that "a-b" of "c" and "a" of "b-c" differ.
func identity(opts Options) (name string, sum [32]byte) {
	sum = sha256.Sum256([]byte(opts.Cluster + "\x00" + opts.Node))
	return fmt.Sprintf("baton:%.80s/%.80s:%s", opts.Cluster, opts.Node, hex.EncodeToString(sum[:6])), sum
}

// rules is a checked list of groups: which group each address and port belongs to.
type rules struct {
	addresses map[[16]byte]cluster.GroupID // IPv4 in its IPv4-mapped form
	ports     map[cluster.Port]cluster.GroupID
	groups    map[cluster.GroupID]bool
}

func check(groups []Group) (*rules, error) {
	r := &rules{map[[16]byte]cluster.GroupID{}, map[cluster.Port]cluster.GroupID{}, map[cluster.GroupID]bool{}}
	if len(groups) > maxGroups {
		return nil, fmt.Errorf("%d groups are more than the %d that a gate can guard", len(groups), maxGroups)
	}
	for _, g := range groups {
		if n := len(g.ID); n == 0 || n > maxNameBytes {
			return nil, fmt.Errorf("group name %q has %d bytes; 1 to %d are possible", g.ID, n, maxNameBytes)
		}
		if r.groups[g.ID] {
			return nil, fmt.Errorf("group %s is named twice", g.ID)
		}
		r.groups[g.ID] = true
		if err := r.add(g); err != nil {
			return nil, err
		}
	}
	if len(r.addresses) > maxAddresses || len(r.ports) > maxPorts {
		return nil, fmt.Errorf("%d addresses and %d ports; at most %d and %d can be guarded",
			len(r.addresses), len(r.ports), maxAddresses, maxPorts)
	}
	return r, nil
}

func (r *rules) add(g Group) error {
	for _, a := range g.Addresses {
		if !a.IsValid() || a.IsUnspecified() || a.IsMulticast() {
			return fmt.Errorf("group %s: %s is not an address that a node can own", g.ID, a)
		}
		if other, ok := r.addresses[a.As16()]; ok && other != g.ID {
			return fmt.Errorf("address %s is guarded by groups %s and %s; one must own it", a, other, g.ID)
		}
		r.addresses[a.As16()] = g.ID
	}
	for _, p := range g.Ports {
		if p.Protocol != "tcp" && p.Protocol != "udp" || p.Number == 0 {
			return fmt.Errorf("group %s: port %s/%d can't be guarded; tcp and udp ports 1 to 65535 can", g.ID, p.Protocol, p.Number)
		}
		if other, ok := r.ports[p]; ok && other != g.ID {
			return fmt.Errorf("port %s/%d is guarded by groups %s and %s; one must own it", p.Protocol, p.Number, other, g.ID)
		}
		r.ports[p] = g.ID
	}
	return nil
}

// protocolNumber returns the IP protocol number of a checked port.
func protocolNumber(p cluster.Port) uint8 {
	if p.Protocol == "tcp" {
		return unix.IPPROTO_TCP
	}
	return unix.IPPROTO_UDP
}

// boottime reads CLOCK_BOOTTIME, the only clock that the kernel's side can compare with and that runs
// on through suspend. It costs a system call, 0.2 us.
func boottime() int64 {
	var ts unix.Timespec
	// It can't fail: the clock exists since Linux 2.6.39 and the pointer is ours.
	_ = unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts)
	return ts.Nano()
}

// settle is how long the watcher of interfaces waits after a failure before it tries again.
const settle = 100 * time.Millisecond
