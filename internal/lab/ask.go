package lab

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"runtime"
	"runtime/debug"
	"strings"
	"sync/atomic"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// What a probe's process writes, one line each.
const (
	replyLine = "reply %d %s %d %d %d" // sequence, node, epoch, sent, received
	strayLine = "stray"
	endLine   = "end %d %d" // requests sent, when
)

const (
	probePriority = 10 // below any agent's
	tcpLimit      = 20 * time.Millisecond
	drainTime     = 100 * time.Millisecond // how long a stopped probe waits for late answers
	receiveBuffer = 4 << 20
)

// probeMain is the process of a Probe: arguments are udp or tcp, the target, the interval. It ends with
// its standard input.
func probeMain(args []string) int {
	fail := func(err error) int {
		fmt.Fprintln(os.Stderr, "probe:", err)
		return 1
	}
	if len(args) != 3 {
		return fail(fmt.Errorf("want 3 arguments, got %q", args))
	}
	target, err := netip.ParseAddrPort(args[1])
	if err != nil {
		return fail(err)
	}
	interval, err := time.ParseDuration(args[2])
	if err != nil {
		return fail(err)
	}
	runtime.GOMAXPROCS(8) // each thread below keeps one to itself; see sleepUntil
	if args[0] == "udp" {
		// A minute of probing makes a few megabytes of garbage at most, and a collection would be seen
		// in the times.
		debug.SetGCPercent(-1)
		debug.SetMemoryLimit(256 << 20)
	}

	var stopped atomic.Bool
	go func() {
		io.Copy(io.Discard, os.Stdin)
		stopped.Store(true)
	}()
	if args[0] == "tcp" {
		askTCP(target, interval, &stopped)
		return 0
	}
	if err := askUDP(target, interval, &stopped); err != nil {
		return fail(err)
	}
	return 0
}

// askUDP sends a numbered request each interval. The request carries when it was sent, and the answer
// carries the request.
func askUDP(target netip.AddrPort, interval time.Duration, stopped *atomic.Bool) error {
	fd, err := unix.Socket(family(target.Addr()), unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open a socket: %w", err)
	}
	poll := unix.NsecToTimeval(int64(drainTime / 2))
	err = errors.Join(
		unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TIMESTAMPNS, 1),
		unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, receiveBuffer),
		unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &poll))
	if err != nil {
		return fmt.Errorf("set socket options: %w", err)
	}
	var drained atomic.Bool
	received := make(chan struct{})
	go func() {
		defer close(received)
		runtime.LockOSThread()
		beRealTime(probePriority)
		hearUDP(fd, target, &drained)
	}()

	runtime.LockOSThread()
	beRealTime(probePriority)
	to := socketAddress(target)
	var requests uint64
	for next := Now(); !stopped.Load(); requests++ {
		sleepUntil(next)
		now := Now()
		// A full queue (nobody answers ARP) or no route loses the request, as it would a client's.
		unix.Sendto(fd, fmt.Appendf(nil, "%d %d", requests, now), unix.MSG_DONTWAIT, to)
		next = max(next+interval, now) // what was missed in a stall is not made up for in a burst
	}
	ended := Now()
	time.Sleep(drainTime)
	drained.Store(true)
	<-received
	fmt.Printf(endLine+"\n", requests, ended)
	return nil
}

// hearUDP writes a line for each answer until it is told to end.
func hearUDP(fd int, target netip.AddrPort, drained *atomic.Bool) {
	buffer, control := make([]byte, 2048), make([]byte, 256)
	for !drained.Load() {
		n, cn, _, from, err := unix.Recvmsg(fd, buffer, control, 0)
		if err != nil {
			continue // the timeout, or an ICMP error: the next answer will tell
		}
		received := arrival(control[:cn])
		if !sameAddress(from, target) {
			os.Stdout.WriteString(strayLine + "\n")
			continue
		}
		var r Reply
		if k, _ := fmt.Sscanf(string(buffer[:n]), "%s %d %d %d", &r.Node, &r.Epoch, &r.Seq, &r.Sent); k == 4 {
			fmt.Printf(replyLine+"\n", r.Seq, r.Node, r.Epoch, r.Sent, received)
		}
	}
}

// arrival returns when the kernel got a datagram. Its stamp is of CLOCK_REALTIME: what is used is how
// long ago that was.
func arrival(control []byte) time.Duration {
	now := Now()
	messages, err := unix.ParseSocketControlMessage(control)
	if err != nil {
		return now
	}
	for _, m := range messages {
		if m.Header.Level == unix.SOL_SOCKET && m.Header.Type == unix.SCM_TIMESTAMPNS && len(m.Data) >= int(unsafe.Sizeof(unix.Timespec{})) {
			stamp := *(*unix.Timespec)(unsafe.Pointer(&m.Data[0]))
			var wall unix.Timespec
			if unix.ClockGettime(unix.CLOCK_REALTIME, &wall) == nil && wall.Nano() > stamp.Nano() {
				return now - time.Duration(wall.Nano()-stamp.Nano())
			}
		}
	}
	return now
}

// askTCP asks over a new connection each time.
func askTCP(target netip.AddrPort, interval time.Duration, stopped *atomic.Bool) {
	runtime.LockOSThread()
	beRealTime(probePriority)
	var requests uint64
	for next := Now(); !stopped.Load(); requests++ {
		sleepUntil(next)
		now := Now()
		if r, err := askOnce(target); err == nil {
			fmt.Printf(replyLine+"\n", requests, r.Node, r.Epoch, now, Now())
		}
		next = max(next+interval, Now())
	}
	fmt.Printf(endLine+"\n", requests, Now())
}

func askOnce(target netip.AddrPort) (Reply, error) {
	var r Reply
	c, err := net.DialTimeout("tcp", target.String(), tcpLimit)
	if err != nil {
		return r, err
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(tcpLimit)); err != nil {
		return r, err
	}
	if _, err := io.WriteString(c, "GET / HTTP/1.0\r\n\r\n"); err != nil {
		return r, err
	}
	text, err := io.ReadAll(c)
	if err != nil {
		return r, err
	}
	_, body, _ := strings.Cut(string(text), "\r\n\r\n")
	_, err = fmt.Sscanf(body, "%s %d", &r.Node, &r.Epoch)
	return r, err
}

func socketAddress(a netip.AddrPort) unix.Sockaddr {
	if a.Addr().Is4() {
		return &unix.SockaddrInet4{Port: int(a.Port()), Addr: a.Addr().As4()}
	}
	return &unix.SockaddrInet6{Port: int(a.Port()), Addr: a.Addr().As16()}
}

func sameAddress(from unix.Sockaddr, target netip.AddrPort) bool {
	switch f := from.(type) {
	case *unix.SockaddrInet4:
		return netip.AddrFrom4(f.Addr) == target.Addr() && f.Port == int(target.Port())
	case *unix.SockaddrInet6:
		return netip.AddrFrom16(f.Addr) == target.Addr() && f.Port == int(target.Port())
	}
	return false
}

// clockNanosleep is clock_nanosleep(2) without Go's scheduler knowing; see sleepUntil.
func clockNanosleep(clock, flags uintptr, until *unix.Timespec) {
	unix.RawSyscall6(unix.SYS_CLOCK_NANOSLEEP, clock, flags, uintptr(unsafe.Pointer(until)), 0, 0, 0)
}
