package trial

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/tls"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"baton/internal/io/identity"
)

// A host on the network without key or token tries everything at the ports that are open, on all nodes at
// once, for some seconds: nobody moves, no client waits, nodes go on to call each other, and it learns nothing.
func TestIntruder(t *testing.T) {
	c := start(t, Options{Takeover: "250ms"})
	i := &intruder{c: c, recorded: c.record(Alpha, 64)}
	foreign, err := identity.New("beta", [][]byte{bytes.Repeat([]byte{1}, 32)})
	c.must(err)
	before := c.keyOf(Alpha)
	const d = 8 * time.Second
	c.undisturbed("an intruder at every port", d+time.Second, func() error {
		ctx, cancel := context.WithTimeout(t.Context(), d)
		i.run(ctx, foreign)
		time.AfterFunc(d, cancel)
		time.Sleep(d / 2)
		_, err := c.command(Alpha, "key", "rotate") // calls from node to node get through
		return err
	})
	i.all.Wait()
	if c.keyOf(Beta) == before || c.keyOf(Beta) != c.keyOf(Alpha) {
		t.Error("the key was not changed meanwhile")
	}
	t.Logf("packets %d, connections %d (%d refused at once), handshakes %d, calls %d (answered with %v)", i.packets.Load(), i.connections.Load(),
		i.refused.Load(), i.handshakes.Load(), i.calls.Load(), i.answers())
	if len(i.answers()) == 0 || i.packets.Load() < 1000 || i.connections.Load() < 200 || i.handshakes.Load() < 20 || i.calls.Load() < 20 {
		t.Error("too little was tried: this shows nothing")
	}
	for _, status := range i.answers() {
		if status != http.StatusUnauthorized {
			t.Errorf("a call was answered with %d", status)
		}
	}
	for _, word := range []string{"alpha", "beta", "gamma", "trial", "web", "10.78.", "\x0a\x4e\x00"} {
		if bytes.Contains(i.heard.Bytes(), []byte(word)) {
			t.Errorf("the intruder learnt %q", word)
		}
	}
	c.must(c.AwaitServing(Alpha, limit))
	out := c.run(Alpha, "history", "-n", "0")
	if strings.Contains(out, "token ") {
		t.Errorf("the intruder is in the history:\n%s", out)
	}
}

// intruder is what one host tries, and what it gets to hear.
type intruder struct {
	c        *incident
	recorded [][]byte
	all      sync.WaitGroup

	packets, connections, refused, handshakes, calls atomic.Int64

	mu     sync.Mutex
	heard  bytes.Buffer // every byte that it could read, decrypted
	status map[int]bool
}

func (i *intruder) run(ctx context.Context, foreign *identity.Identity) {
	anybody := func(alpn ...string) *tls.Config { return &tls.Config{InsecureSkipVerify: true, NextProtos: alpn} }
	wrong := func(alpn ...string) *tls.Config {
		config := foreign.Client("alpha", alpn...)
		config.VerifyConnection = nil
		return config
	}
	tries := []func(net.Conn){
		func(conn net.Conn) { time.Sleep(time.Second) }, // says nothing
		func(conn net.Conn) { i.noise(conn) },
		func(conn net.Conn) { // a client hello that never ends
			_, _ = conn.Write([]byte{22, 3, 1, 0x3f, 0xff, 1, 0, 0x3f, 0xfb})
			time.Sleep(time.Second)
		},
		func(conn net.Conn) { i.shake(conn, anybody("else")) },
		func(conn net.Conn) { i.shake(conn, wrong("else")) },
		func(conn net.Conn) { i.shake(conn, wrong(identity.APIProtocols...)) },
		func(conn net.Conn) { i.call(conn, anybody("http/1.1"), "") },
		func(conn net.Conn) { i.call(conn, anybody("http/1.1"), secret(identity.FormatToken)) },
		func(conn net.Conn) {
			i.call(conn, anybody("http/1.1"), secret(func(s []byte) string { return identity.Invitation{Secret: s}.Format() }))
		},
		func(conn net.Conn) { i.call(conn, anybody("http/1.1"), "hunter2") },
		func(conn net.Conn) { // keeps a connection as long as it may
			t := tls.Client(conn, anybody("h2"))
			if t.HandshakeContext(ctx) == nil {
				_, _ = io.WriteString(t, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
				time.Sleep(2 * time.Second)
			}
		},
	}
	for n := range Nodes {
		to := fmt.Sprintf("10.77.0.%d:7400", 11+n)
		for k := range tries {
			i.all.Go(func() { i.connect(ctx, to, tries[k]) })
		}
	}
	i.all.Go(func() { i.datagrams(ctx) })
	i.all.Go(func() { i.halfOpen(ctx) })
}

func secret(format func([]byte) string) string {
	s := make([]byte, identity.SecretSize)
	_, _ = rand.Read(s)
	return format(s)
}

// connect tries one thing again and again, on a few connections at once.
func (i *intruder) connect(ctx context.Context, to string, try func(net.Conn)) {
	for ctx.Err() == nil {
		conn, err := i.c.Host(Client).DialContext(ctx, "tcp", to)
		i.connections.Add(1)
		if err != nil {
			time.Sleep(10 * time.Millisecond)
			continue
		}
		conn.SetDeadline(time.Now().Add(3 * time.Second))
		try(conn)
		conn.Close()
		time.Sleep(20 * time.Millisecond)
	}
}

func (i *intruder) noise(conn net.Conn) {
	noise := make([]byte, 1<<16)
	_, _ = rand.Read(noise)
	if _, err := conn.Write(noise); err != nil {
		i.refused.Add(1)
	}
	i.listen(conn)
}

func (i *intruder) listen(r io.Reader) {
	b, _ := io.ReadAll(io.LimitReader(r, 1<<16))
	i.mu.Lock()
	defer i.mu.Unlock()
	i.heard.Write(b)
}

func (i *intruder) shake(conn net.Conn, config *tls.Config) *tls.Conn {
	t := tls.Client(conn, config)
	if err := t.Handshake(); err != nil {
		i.refused.Add(1)
		return nil
	}
	i.handshakes.Add(1)
	i.mu.Lock()
	for _, cert := range t.ConnectionState().PeerCertificates {
		i.heard.Write(cert.Raw)
	}
	i.mu.Unlock()
	return t
}

// call asks for everything that could move something or tell something.
func (i *intruder) call(conn net.Conn, config *tls.Config, credential string) {
	t := i.shake(conn, config)
	if t == nil {
		return
	}
	paths := []string{"/baton.v1.Baton/Switch", "/baton.v1.Baton/Status", "/baton.v1.Join/Fetch", "/baton.v1.Keys/GetKeys", "/baton.v1.Access/RotateKey", "/healthz", "/metrics", "/"}
	path := paths[int(i.calls.Add(1))%len(paths)]
	var head string
	if credential != "" {
		head = "Authorization: Bearer " + credential + "\r\n"
	}
	body := `{"group":"web","to":"beta","node":"beta"}`
	fmt.Fprintf(t, "POST %s HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n%sContent-Length: %d\r\n\r\n%s", path, head, len(body), body)
	answer, _ := io.ReadAll(io.LimitReader(t, 1<<16))
	if len(answer) == 0 { // it was cut off without an answer
		return
	}
	var status int
	_, _ = fmt.Sscanf(string(answer), "HTTP/1.1 %d", &status)
	i.mu.Lock()
	defer i.mu.Unlock()
	i.heard.Write(answer)
	if i.status == nil {
		i.status = make(map[int]bool)
	}
	i.status[status] = true
}

func (i *intruder) answers() (all []int) {
	i.mu.Lock()
	defer i.mu.Unlock()
	for s := range i.status {
		all = append(all, s)
	}
	slices.Sort(all)
	return all
}

// datagrams sends, to every node, what was recorded: as it was, spoilt, cut, made longer, and in the name of others.
func (i *intruder) datagrams(ctx context.Context) {
	socket, err := i.c.Host(Client).ListenPacket(ctx, "udp4", "10.77.0.14:0")
	if err != nil {
		return
	}
	defer socket.Close()
	random := make([]byte, 9000)
	for n := 0; ctx.Err() == nil; n++ {
		_, _ = rand.Read(random[:64])
		packet := i.recorded[n%len(i.recorded)]
		spoilt := slices.Clone(packet)
		spoilt[int(random[0])%len(spoilt)] ^= random[1] | 1
		other := bytes.Replace(slices.Clone(packet), []byte("beta"), []byte("zeta"), 1)
		newRun := slices.Clone(packet)
		copy(newRun[3+int(packet[2]):], random[2:10]) // a run never heard of: the dearest to refuse
		for k := range Nodes {
			to := &net.UDPAddr{IP: net.IPv4(10, 77, 0, byte(11+k)), Port: 7400}
			for _, p := range [][]byte{packet, spoilt, packet[:int(random[3])%len(packet)], append(slices.Clone(packet), random[:1000]...), other, newRun, random[:1+int(random[4])*30]} {
				if _, err := socket.WriteTo(p, to); err == nil {
					i.packets.Add(1)
				}
			}
		}
		time.Sleep(2 * time.Millisecond)
	}
}

// halfOpen begins connections in the name of hosts that are not there, which never go on (a SYN flood).
func (i *intruder) halfOpen(ctx context.Context) {
	_ = i.c.Host(Client).Do(func() error {
		s, err := unix.Socket(unix.AF_INET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_RAW)
		if err != nil {
			return err
		}
		defer unix.Close(s)
		for n := 0; ctx.Err() == nil; n++ {
			to := [4]byte{10, 77, 0, byte(11 + n%len(Nodes))}
			from := [4]byte{10, 77, 0, byte(100 + n%100)}
			if err := unix.Sendto(s, syn(from, to, uint16(1024+n%60000)), 0, &unix.SockaddrInet4{Addr: to}); err == nil {
				i.packets.Add(1)
			}
			if n%4 == 0 {
				time.Sleep(2 * time.Millisecond)
			}
		}
		return nil
	})
}

// syn is a TCP segment that asks for a connection to the port (RFC 9293, 3.1).
func syn(from, to [4]byte, port uint16) []byte {
	segment := make([]byte, 20)
	binary.BigEndian.PutUint16(segment, port)
	binary.BigEndian.PutUint16(segment[2:], 7400)
	binary.BigEndian.PutUint32(segment[4:], uint32(port)<<16)
	segment[12], segment[13] = 5<<4, 2
	binary.BigEndian.PutUint16(segment[14:], 64240)
	pseudo := append(append(append([]byte{}, from[:]...), to[:]...), 0, unix.IPPROTO_TCP, 0, byte(len(segment)))
	binary.BigEndian.PutUint16(segment[16:], checksum(append(pseudo, segment...)))
	header := []byte{0x45, 0, 0, 40, 0, 0, 0x40, 0, 64, unix.IPPROTO_TCP, 0, 0}
	header = append(append(header, from[:]...), to[:]...)
	binary.BigEndian.PutUint16(header[10:], checksum(header))
	return append(header, segment...)
}

func checksum(b []byte) uint16 {
	var sum uint32
	for k := 0; k < len(b); k += 2 {
		sum += uint32(b[k])<<8 | uint32(b[k+1])
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum)
}
