package app

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"

	"baton/internal/core/config"
)

// loopbackNodes are the nodes of loopbackFile, each with the last byte of its address.
var loopbackNodes = map[string]byte{"alpha": 11, "beta": 12, "gamma": 13}

// loopbackClaim is the last byte of the address that says that a demo has a network.
const loopbackClaim = 10

// loopbackNet is the part of this machine's loopback that one demo has to itself: 127.0.N.0/24. Several demos
// may run at once, of one user or of several.
type loopbackNet byte

func (n loopbackNet) at(last byte, port uint16) string {
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, byte(n), last}), port).String()
}

// service is where a node's service listens.
func (n loopbackNet) service(node string) string { return n.at(loopbackNodes[node], devPort) }

// claimLoopback finds the first network where nothing listens. Other demos leave it alone until the claim is
// closed or this process ends, however it does: the claim is a socket.
func claimLoopback() (loopbackNet, io.Closer, error) {
	var last error
	for n := range 256 {
		claim, err := loopbackNet(n).claim()
		if err == nil {
			return loopbackNet(n), claim, nil
		}
		last = err
	}
	return 0, nil, fail(exitFailed, fmt.Sprintf("ss -tulpn shows what has port %d or %d", config.DefaultPort, devPort),
		"nothing is free from 127.0.0.%d on: %v", loopbackNodes["alpha"], last)
}

func (n loopbackNet) claim() (io.Closer, error) {
	claim, err := new(net.ListenConfig).ListenPacket(context.Background(), "udp4", n.at(loopbackClaim, devPort))
	if err != nil {
		return nil, err
	}
	for _, last := range loopbackNodes {
		for _, port := range []uint16{config.DefaultPort, devPort} {
			if err := tryListening(n.at(last, port)); err != nil {
				return nil, errors.Join(err, claim.Close())
			}
		}
	}
	return claim, nil
}

// tryListening tells whether a program can listen at an address, by UDP and by TCP.
func tryListening(at string) error {
	packets, err := new(net.ListenConfig).ListenPacket(context.Background(), "udp4", at)
	if err != nil {
		return err
	}
	pages, err := new(net.ListenConfig).Listen(context.Background(), "tcp4", at)
	if err != nil {
		return errors.Join(err, packets.Close())
	}
	return errors.Join(packets.Close(), pages.Close())
}
