package app

import (
	"bufio"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"baton/internal/io/bounded"
)

// holder is who has a port of this host.
type holder struct {
	pid  int // 0: it can't be seen from here
	name string
	at   netip.AddrPort // where it listens: an address, or all
}

func (h holder) String() string {
	who := "a process that can't be seen from here"
	if h.pid != 0 {
		who = fmt.Sprintf("%s (pid %d)", h.name, h.pid)
	}
	if h.at.Addr().IsUnspecified() {
		who += ", on all addresses"
	}
	return who
}

// holderOf finds who keeps this process from listening at an address, network "udp" or "tcp"; false: nobody is found.
func holderOf(network string, at netip.AddrPort) (holder, bool) {
	held, found := holder{}, false
	inode := ""
	for _, family := range []string{"", "6"} {
		text, err := bounded.ReadFile("/proc/thread-self/net/"+network+family, bounded.Proc)
		if err != nil {
			continue
		}
		for lines := bufio.NewScanner(strings.NewReader(string(text))); lines.Scan(); {
			s, ok := parseSocket(lines.Text())
			if !ok || !s.keepsFrom(network, at) {
				continue
			}
			if !found || s.at.Addr() == at.Addr() { // before one that has all addresses
				held.at, inode, found = s.at, s.inode, true
			}
		}
	}
	if found {
		held.pid, held.name = processWith("socket:[" + inode + "]")
	}
	return held, found
}

// socketLine is a line of /proc/net/udp, udp6, tcp or tcp6 (proc_pid_net(5)).
type socketLine struct {
	at    netip.AddrPort
	state string
	inode string
}

// tcpListens is the state of a TCP socket that takes connections.
const tcpListens = "0A"

func parseSocket(line string) (s socketLine, ok bool) {
	f := strings.Fields(line)
	if len(f) < 10 {
		return s, false
	}
	text, port, _ := strings.Cut(f[1], ":")
	raw, err := hex.DecodeString(text)
	number, bad := strconv.ParseUint(port, 16, 16)
	if err != nil || bad != nil || len(raw)%4 != 0 {
		return s, false
	}
	for i := 0; i < len(raw); i += 4 { // the file has each word as the machine's number, not in the order of the network
		binary.NativeEndian.PutUint32(raw[i:], binary.BigEndian.Uint32(raw[i:]))
	}
	a, ok := netip.AddrFromSlice(raw)
	return socketLine{netip.AddrPortFrom(a.Unmap(), uint16(number)), f[3], f[9]}, ok
}

// keepsFrom tells whether nobody else can listen at an address while the socket is there. One that has all IPv6
// addresses mostly has those of IPv4 too (ipv6(7), IPV6_V6ONLY).
func (s socketLine) keepsFrom(network string, at netip.AddrPort) bool {
	if s.at.Port() != at.Port() || network == "tcp" && s.state != tcpListens {
		return false
	}
	return s.at.Addr() == at.Addr().Unmap() || s.at.Addr().IsUnspecified() && (s.at.Addr().Is6() || at.Addr().Unmap().Is4())
}

// processWith finds the process that has a file open; 0: none that can be seen.
func processWith(file string) (pid int, name string) {
	links, err := filepath.Glob("/proc/[0-9]*/fd/*")
	if err != nil {
		return 0, ""
	}
	for _, l := range links {
		to, err := os.Readlink(l)
		if err != nil || to != file {
			continue
		}
		process := filepath.Dir(filepath.Dir(l))
		if pid, err = strconv.Atoi(filepath.Base(process)); err != nil {
			continue
		}
		text, err := bounded.ReadFile(process+"/comm", bounded.Proc)
		if err != nil {
			continue // it has just ended
		}
		return pid, strings.TrimSpace(string(text))
	}
	return 0, ""
}
