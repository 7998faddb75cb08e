package api

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"strconv"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"

	"baton/internal/core/cluster"
	"baton/internal/io/accounts"
)

// GroupName is the system group whose members may use the socket.
const GroupName = "baton"

// peer is who is at the other end of a connection: on the socket by the word of the kernel at the time it
// connected, else by its credential.
type peer struct {
	pid    int32
	uid    uint32
	groups []uint32 // its primary group first
	err    error    // the kernel did not tell

	role    role
	node    cluster.NodeID // that it talks to, on the socket
	name    string         // of who is known by a credential: "token NAME", "node NAME"
	invited cluster.NodeID // for which node its invitation is
	secret  []byte         // of its invitation
}

type peerKey struct{}

func withPeer(ctx context.Context, p peer) context.Context {
	return context.WithValue(ctx, peerKey{}, p)
}

// connected asks the kernel once for each connection (unix(7), SO_PEERCRED and SO_PEERGROUPS).
func connected(ctx context.Context, c net.Conn) context.Context { return withPeer(ctx, askPeer(c)) }

type callerKey struct{}

// By names who asked for something, for the journal: "alice (uid 1000) on alpha", "token NAME" or "node NAME".
func By(ctx context.Context) string { return peerOf(ctx).String() }

func peerOf(ctx context.Context) peer {
	p, ok := ctx.Value(peerKey{}).(peer)
	if !ok {
		return peer{err: errors.New("the connection is not known")}
	}
	return p
}

func askPeer(c net.Conn) peer {
	u, ok := c.(*net.UnixConn)
	if !ok {
		return peer{err: fmt.Errorf("%T is no unix socket", c)}
	}
	raw, err := u.SyscallConn()
	if err != nil {
		return peer{err: err}
	}
	var p peer
	if err := raw.Control(func(fd uintptr) {
		cred, err := unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
		if err != nil {
			p.err = err
			return
		}
		p.pid, p.uid, p.groups = cred.Pid, cred.Uid, []uint32{cred.Gid}
		// Without the supplementary groups (Linux before 4.13) the primary one has to do.
		if more, err := peerGroups(int(fd)); err == nil {
			p.groups = append(p.groups, more...)
		}
	}); err != nil {
		p.err = err
	}
	return p
}

// peerGroups reads SO_PEERGROUPS, for which neither syscall nor x/sys has a function.
func peerGroups(fd int) ([]uint32, error) {
	groups := make([]uint32, 64)
	for {
		size := uint32(4 * len(groups))
		_, _, errno := syscall.Syscall6(syscall.SYS_GETSOCKOPT, uintptr(fd), unix.SOL_SOCKET, unix.SO_PEERGROUPS,
			uintptr(unsafe.Pointer(&groups[0])), uintptr(unsafe.Pointer(&size)), 0)
		switch {
		case errno == 0:
			return groups[:size/4], nil
		case errno == syscall.ERANGE && int(size) > 4*len(groups): // the kernel says how much it needs
			groups = make([]uint32, size/4)
		default:
			return nil, errno
		}
	}
}

// String names a peer for the journal.
func (p peer) String() string {
	switch {
	case p.name != "":
		return p.name
	case p.err != nil:
		return "unknown"
	case p.node == "":
		return fmt.Sprintf("%s (uid %d)", p.user(), p.uid)
	}
	return fmt.Sprintf("%s (uid %d) on %s", p.user(), p.uid, p.node)
}

// user names the user, if the system knows it.
func (p peer) user() string {
	id := strconv.FormatUint(uint64(p.uid), 10)
	if u, err := accounts.User(id); err == nil {
		return u.Name
	}
	return id
}

// refusal tells why a peer may not use the API, or "". The group is the one whose members may, if the
// system has it; it is asked for only where that decides.
func (p peer) refusal(group func() (uint32, bool)) string {
	if p.err != nil {
		return fmt.Sprintf("the kernel does not tell who asks: %v", p.err)
	}
	if p.uid == 0 || int(p.uid) == os.Geteuid() {
		return ""
	}
	if gid, exists := group(); exists && slices.Contains(p.groups, gid) {
		return ""
	}
	return fmt.Sprintf("%s may not use this agent: root and members of group %s may", p, GroupName)
}

// systemGroup returns the number of the group whose members may use the socket, if the system has it.
func systemGroup() (uint32, bool) {
	gid, err := accounts.Group(GroupName)
	return gid, err == nil
}
