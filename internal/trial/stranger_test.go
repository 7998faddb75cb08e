package trial

import (
	"context"
	"crypto/rand"
	"net"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"baton/internal/lab"
)

// A host on the network without the key sends noise, and genuine packets that it has recorded, to every node
// for some seconds. Nobody listens.
func TestStranger(t *testing.T) {
	c := start(t, Options{Takeover: "250ms"})
	recorded := c.record(Alpha, 64)
	sent := make(chan int)
	go func() { sent <- c.flood(recorded, 5*time.Second) }()
	c.undisturbed("a stranger floods the nodes", 5*time.Second, func() error { return nil })
	if n := <-sent; n < 1000 {
		t.Errorf("only %d packets were sent: this shows nothing", n)
	} else {
		t.Logf("%d packets sent", n)
	}
	c.must(c.AwaitServing(Alpha, limit))
}

// flood sends, from the client, recorded packets, spoilt ones and noise to all nodes for a time. It returns
// how many it sent.
func (c *incident) flood(recorded [][]byte, d time.Duration) (sent int) {
	socket, err := c.Host(Client).ListenPacket(context.Background(), "udp4", "10.77.0.14:0")
	if err != nil {
		return 0
	}
	defer socket.Close()
	noise := make([]byte, 1200)
	for end := time.Now().Add(d); time.Now().Before(end); time.Sleep(time.Millisecond) {
		_, _ = rand.Read(noise)
		packet := recorded[sent%len(recorded)]
		spoilt := append([]byte(nil), packet...)
		spoilt[int(noise[0])%len(spoilt)] ^= noise[1] | 1
		for i := range Nodes {
			to := &net.UDPAddr{IP: net.IPv4(10, 77, 0, byte(11+i)), Port: 7400}
			for _, p := range [][]byte{packet, spoilt, noise[:1+int(noise[2])]} {
				if _, err := socket.WriteTo(p, to); err == nil {
					sent++
				}
			}
		}
	}
	return sent
}

// Another host claims the group's address. The owner defends it, its clients notice nothing, and status
// says who it was.
func TestDuplicateAddress(t *testing.T) {
	c := start(t, Options{})
	other := c.ask(Gamma, VIP)
	since := lab.Now()
	mac := c.claim(Client)
	c.eventually("status names the other host", func() bool {
		return strings.Contains(c.run(Alpha, "--json", "status"), "another host (MAC "+mac+") answers for 10.77.0.50")
	})
	time.Sleep(500 * time.Millisecond)
	for _, p := range []*lab.Probe{c.probe, other} {
		c.noGapOf(p, "another host claimed the address", since)
	}
	if text := c.run(Alpha, "status"); !strings.Contains(text, mac) {
		t.Errorf("status for people does not show it:\n%s", text)
	}
}

// claim announces the group's address by ARP from a host that has no right to it, and returns its hardware
// address.
func (c *incident) claim(host string) (mac string) {
	c.t.Helper()
	c.must(c.Host(host).Do(func() error {
		link, err := net.InterfaceByName(LAN)
		if err != nil {
			return err
		}
		mac = link.HardwareAddr.String()
		s, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer unix.Close(s)
		ip := VIP.Addr().As4()
		var f []byte // an announcement: a request whose sender and target are the same (RFC 5227, 3)
		f = append(f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff)
		f = append(f, link.HardwareAddr...)
		f = append(f, 0x08, 0x06, 0, 1, 0x08, 0, 6, 4, 0, 1)
		f = append(f, link.HardwareAddr...)
		f = append(f, ip[:]...)
		f = append(f, make([]byte, 6)...)
		f = append(f, ip[:]...)
		return unix.Sendto(s, f, 0, &unix.SockaddrLinklayer{Ifindex: link.Index, Protocol: 0x0608})
	}))
	return mac
}

// record copies datagrams of the cluster as a host receives them.
func (c *incident) record(host string, n int) [][]byte {
	c.t.Helper()
	var packets [][]byte
	c.must(c.Host(host).Do(func() error {
		s, err := unix.Socket(unix.AF_INET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_UDP) // raw(7): it gets copies, with their IP header
		if err != nil {
			return err
		}
		defer unix.Close(s)
		buffer := make([]byte, 2048)
		for len(packets) < n {
			k, _, err := unix.Recvfrom(s, buffer, 0)
			if err != nil {
				return err
			}
			if header := int(buffer[0]&15) * 4; k > header+8 && buffer[header+2] == 7400>>8 && buffer[header+3] == 7400&0xff {
				packets = append(packets, append([]byte(nil), buffer[header+8:k]...))
			}
		}
		return nil
	}))
	return packets
}
