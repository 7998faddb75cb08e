package lab

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/signal"
	"regexp"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// EchoConfig describes an echo service.
type EchoConfig struct {
	Node string // who answers; default: the host's name
	Port uint16 // UDP and TCP, on every address, those that come later included
	// StateFile is read for each answer: its first number is the current epoch (the one after the word
	// "epoch" where there is one). "" or a file without a number: Epoch. One that is not there for a moment, since
	// somebody deleted it: what it said last.
	StateFile string
	Epoch     uint64

	read *atomic.Uint64 // what the file said last; 0: nothing yet
}

// echoMax is the longest request that is answered; what is longer is cut.
const echoMax = 512

// The patterns of an epoch in a state file, the better one first.
var epochPatterns = []*regexp.Regexp{regexp.MustCompile(`(?i)epoch\D*(\d+)`), regexp.MustCompile(`(\d+)`)}

// EchoProgram returns the echo service as a program to run in a host: this program, run again.
func EchoProgram(port uint16, env ...string) (Program, error) {
	self, err := os.Executable()
	if err != nil {
		return Program{}, err
	}
	return Program{
		Args:   []string{self, "-port", strconv.Itoa(int(port))},
		Env:    append([]string{modeVariable + "=" + modeEcho}, env...),
		Output: "echo",
	}, nil
}

// EchoMain runs the echo service with flags until SIGTERM or SIGINT, and returns the exit status.
// BATON_NODE, BATON_EPOCH and BATON_STATE_FILE in the environment are the other fields of EchoConfig.
func EchoMain(args []string) int {
	config := EchoConfig{Node: os.Getenv("BATON_NODE"), StateFile: os.Getenv("BATON_STATE_FILE")}
	config.Epoch, _ = strconv.ParseUint(os.Getenv("BATON_EPOCH"), 10, 64)
	flags := flag.NewFlagSet("echo", flag.ContinueOnError)
	port := flags.Uint("port", 7000, "UDP and TCP port")
	if err := flags.Parse(args); err != nil {
		return 2
	}
	if *port == 0 || *port > 65535 {
		fmt.Fprintf(os.Stderr, "echo: port %d is not between 1 and 65535\n", *port)
		return 2
	}
	config.Port = uint16(*port)
	ctx, cancel := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer cancel()
	if err := ServeEcho(ctx, config); err != nil {
		fmt.Fprintln(os.Stderr, "echo:", err)
		return 1
	}
	return 0
}

// ServeEcho is a small service to see a failover by. A datagram is answered by "NODE EPOCH REQUEST",
// from the address that was asked; HTTP GET / by "NODE EPOCH PID". It serves until ctx ends and then
// returns nil; else it returns what made it fail.
func ServeEcho(ctx context.Context, config EchoConfig) error {
	config.read = new(atomic.Uint64)
	if config.Node == "" {
		name, err := os.Hostname()
		if err != nil {
			return fmt.Errorf("serve echo: read the host's name: %w", err)
		}
		config.Node = name
	}
	var sockets []*net.UDPConn
	var listeners []net.Listener
	var running sync.WaitGroup
	defer running.Wait()
	defer func() {
		for _, s := range sockets {
			s.Close()
		}
		for _, l := range listeners {
			l.Close()
		}
	}()
	for _, version := range []string{"4", "6"} {
		udp, tcp, err := listenEcho(ctx, version, config.Port)
		if version == "6" && errors.Is(err, unix.EAFNOSUPPORT) {
			continue // a kernel without IPv6
		}
		if err != nil {
			return fmt.Errorf("serve echo: %w", err)
		}
		sockets, listeners = append(sockets, udp), append(listeners, tcp)
	}

	failed := make(chan error, len(sockets)+len(listeners))
	for _, s := range sockets {
		running.Go(func() { failed <- config.answer(s) })
	}
	server := &http.Server{Handler: http.HandlerFunc(config.serveHTTP), ReadHeaderTimeout: 5 * time.Second}
	defer server.Close()
	for _, l := range listeners {
		running.Go(func() { failed <- server.Serve(l) })
	}
	select {
	case <-ctx.Done():
		return nil
	case err := <-failed:
		return fmt.Errorf("serve echo: %w", err)
	}
}

// listenEcho opens both sockets of one IP version. The UDP socket tells which address was asked.
func listenEcho(ctx context.Context, version string, port uint16) (*net.UDPConn, net.Listener, error) {
	level, option := unix.IPPROTO_IP, unix.IP_PKTINFO
	if version == "6" {
		level, option = unix.IPPROTO_IPV6, unix.IPV6_RECVPKTINFO
	}
	address := fmt.Sprintf(":%d", port)
	config := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
		var err error
		if e := c.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), level, option, 1) }); e != nil {
			return e
		}
		return err
	}}
	udp, err := config.ListenPacket(ctx, "udp"+version, address)
	if err != nil {
		return nil, nil, err
	}
	tcp, err := new(net.ListenConfig).Listen(ctx, "tcp"+version, address)
	if err != nil {
		udp.Close()
		return nil, nil, err
	}
	return udp.(*net.UDPConn), tcp, nil
}

// answer answers datagrams until the socket is closed.
func (c EchoConfig) answer(socket *net.UDPConn) error {
	buffer, control := make([]byte, echoMax), make([]byte, 128)
	for {
		n, cn, _, from, err := socket.ReadMsgUDPAddrPort(buffer, control)
		if errors.Is(err, net.ErrClosed) {
			return nil
		}
		if err != nil {
			continue // an ICMP error for an earlier answer
		}
		reply := fmt.Appendf(nil, "%s %d %s", c.Node, c.epoch(), buffer[:n])
		// The address asked, as received, is the address to answer from: without it the kernel takes the
		// link's first, and a client of a virtual address drops the answer. An answer that can't be sent
		// (the address has just gone) is lost, as datagrams are.
		socket.WriteMsgUDPAddrPort(reply, freeLink(control[:cn]), from)
	}
}

// freeLink takes the link out of a received IP_PKTINFO, so that the answer goes by the routing table.
// IPv6's stays: a link-local address needs it.
func freeLink(control []byte) []byte {
	messages, err := unix.ParseSocketControlMessage(control)
	if err != nil {
		return nil
	}
	for _, m := range messages {
		if m.Header.Level == unix.IPPROTO_IP && m.Header.Type == unix.IP_PKTINFO && len(m.Data) >= unix.SizeofInet4Pktinfo {
			clear(m.Data[:4]) // ipi_ifindex, in place: Data lies in control
		}
	}
	return control
}

func (c EchoConfig) serveHTTP(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path != "/" {
		http.NotFound(w, r)
		return
	}
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	fmt.Fprintf(w, "%s %d %d\n", c.Node, c.epoch(), os.Getpid())
}

// epoch returns the epoch under which this node serves now.
func (c EchoConfig) epoch() uint64 {
	if c.StateFile == "" {
		return c.Epoch
	}
	text, err := os.ReadFile(c.StateFile)
	if err != nil {
		return cmp.Or(c.read.Load(), c.Epoch)
	}
	for _, pattern := range epochPatterns {
		if m := pattern.FindSubmatch(text); m != nil {
			if epoch, err := strconv.ParseUint(string(m[1]), 10, 64); err == nil {
				c.read.Store(epoch)
				return epoch
			}
		}
	}
	return c.Epoch
}
