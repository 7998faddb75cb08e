package resource

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/url"
	"slices"
	"strconv"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"baton/internal/core/cluster"
)

const (
	byFamily = 20 // SOCK_DIAG_BY_FAMILY of linux/sock_diag.h
	portAt   = 4  // of the local port in inet_diag_msg of linux/inet_diag.h
	requests = 56 // bytes of inet_diag_req_v2

	tcpListen = 1 << 10 // TCP_LISTEN of linux/tcp_states.h, as a set
	udpBound  = 1 << 7  // what an unconnected UDP socket calls its state: TCP_CLOSE
)

// diagRequest asks for sockets (sock_diag(7)).
type diagRequest struct {
	family, protocol uint8
	states           uint32
}

// Len implements nl.NetlinkRequestData.
func (r diagRequest) Len() int { return requests }

// Serialize implements nl.NetlinkRequestData.
func (r diagRequest) Serialize() []byte {
	b := make([]byte, requests)
	b[0], b[1] = r.family, r.protocol
	binary.NativeEndian.PutUint32(b[4:], r.states)
	return b
}

// listenedOn returns those of the ports on which a program of this host listens.
func listenedOn(ports []cluster.Port) (out []cluster.Port, err error) {
	for _, p := range []struct {
		name     string
		protocol uint8
		states   uint32
	}{{"tcp", unix.IPPROTO_TCP, tcpListen}, {"udp", unix.IPPROTO_UDP, udpBound}} {
		if !slices.ContainsFunc(ports, func(x cluster.Port) bool { return x.Protocol == p.name }) {
			continue
		}
		for _, family := range []uint8{unix.AF_INET, unix.AF_INET6} {
			request := nl.NewNetlinkRequest(byFamily, unix.NLM_F_DUMP)
			request.AddData(diagRequest{family, p.protocol, p.states})
			answers, failed := request.Execute(unix.NETLINK_SOCK_DIAG, 0)
			if failed != nil {
				err = errors.Join(err, fmt.Errorf("list the %s sockets: %w", p.name, failed))
				continue
			}
			for _, m := range answers {
				if len(m) < portAt+2 {
					continue
				}
				port := cluster.Port{Protocol: p.name, Number: binary.BigEndian.Uint16(m[portAt:])}
				if slices.Contains(ports, port) && !slices.Contains(out, port) {
					out = append(out, port)
				}
			}
		}
	}
	return out, err
}

// listens lists the ports that the program is known to listen on: those that the gate guards, and the one by which it
// is asked whether it is ready.
func (p *process) listens() []cluster.Port {
	out := slices.Clone(p.ports)
	if p.ready == nil {
		return out
	}
	at := p.ready.tcp
	if u, err := url.Parse(p.ready.http); err == nil && u.Host != "" {
		at = u.Host
		if u.Port() == "" {
			at = net.JoinHostPort(u.Hostname(), map[string]string{"http": "80", "https": "443"}[u.Scheme])
		}
	}
	host, number, err := net.SplitHostPort(at)
	n, failed := strconv.ParseUint(number, 10, 16)
	if ip := net.ParseIP(host); err != nil || failed != nil || host != "localhost" && (ip == nil || !ip.IsLoopback()) {
		return out
	}
	if port := (cluster.Port{Protocol: "tcp", Number: uint16(n)}); !slices.Contains(out, port) {
		out = append(out, port)
	}
	return out
}

// portTaken says that a port which a program that does not run would listen on is another's; nil: none is, or it is not
// known.
func (p *process) portTaken() error {
	ports, err := listenedOn(p.listens())
	if err != nil || len(ports) == 0 {
		return nil
	}
	return fmt.Errorf("port %s/%d is held by another program: ss -lnp 'sport = :%[2]d' names it", ports[0].Protocol, ports[0].Number)
}

// portStillTaken is portTaken once what the program has started itself, and was killed with it, has died.
func (p *process) portStillTaken() error {
	ctx, cancel := context.WithTimeout(p.life, dying)
	defer cancel()
	if err := p.group.awaitEmpty(ctx); err != nil {
		return nil
	}
	return p.portTaken()
}
