package api

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/user"
	"slices"
	"strconv"
	"syscall"
	"unsafe"

	"connectrpc.com/connect"
	"golang.org/x/sys/unix"
)

// GroupName is the system group whose members may use the socket.
const GroupName = "baton"

// peer is who is at the other end of a connection, by the word of the kernel at the time it connected.
type peer struct {
	pid    int32
	uid    uint32
	groups []uint32 // its primary group first
	err    error    // the kernel did not tell
}

type peerKey struct{}

// withPeer asks the kernel once for each connection (unix(7), SO_PEERCRED and SO_PEERGROUPS).
func withPeer(ctx context.Context, c net.Conn) context.Context {
	return context.WithValue(ctx, peerKey{}, askPeer(c))
}

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
	if p.err != nil {
		return "unknown"
	}
	name := strconv.FormatUint(uint64(p.uid), 10)
	if u, err := user.LookupId(name); err == nil {
		name = u.Username
	}
	return fmt.Sprintf("%s (pid %d)", name, p.pid)
}

// refusal tells why a peer may not use the API, or "". The group is the one whose members may, if the
// system has it.
func (p peer) refusal(group uint32, exists bool) string {
	if p.err != nil {
		return fmt.Sprintf("the kernel does not tell who asks: %v", p.err)
	}
	if p.uid == 0 || int(p.uid) == os.Geteuid() {
		return ""
	}
	if exists && slices.Contains(p.groups, group) {
		return ""
	}
	return fmt.Sprintf("%s may not use this agent: root and members of group %s may", p, GroupName)
}

// systemGroup returns the number of the group whose members may use the socket, if the system has it.
func systemGroup() (uint32, bool) {
	g, err := user.LookupGroup(GroupName)
	if err != nil {
		return 0, false
	}
	gid, err := strconv.ParseUint(g.Gid, 10, 32)
	return uint32(gid), err == nil
}

// allowed lets requests through whose peer may use the API, and tells the others why not.
func allowed(next http.Handler) http.Handler {
	writer := connect.NewErrorWriter()
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		why := peerOf(r.Context()).refusal(systemGroup())
		switch {
		case why == "":
			next.ServeHTTP(w, r)
		case writer.IsSupported(r):
			// An error here means that the peer has gone.
			_ = writer.Write(w, r, failure(connect.CodePermissionDenied, "use sudo, or have root add you: usermod -aG "+GroupName+" USER", "%s", why))
		default:
			http.Error(w, why, http.StatusForbidden)
		}
	})
}
