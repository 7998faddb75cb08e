package identity

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"baton/internal/core/cluster"
)

var (
	testKey  = bytes.Repeat([]byte{7}, 32)
	otherKey = bytes.Repeat([]byte{9}, 32)
)

func of(t *testing.T, node cluster.NodeID, keys ...[]byte) *Identity {
	t.Helper()
	i, err := New(node, keys)
	if err != nil {
		t.Fatal(err)
	}
	return i
}

// shake makes a handshake over a real connection and returns what both sides know and say.
func shake(t *testing.T, server, client *tls.Config) (s, c tls.ConnectionState, serverErr, clientErr error) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	done := make(chan struct{})
	go func() {
		defer close(done)
		raw, err := ln.Accept()
		if err != nil {
			serverErr = err
			return
		}
		defer raw.Close()
		raw.SetDeadline(time.Now().Add(10 * time.Second))
		conn := tls.Server(raw, server)
		if serverErr = conn.Handshake(); serverErr == nil {
			s = conn.ConnectionState()
			_, serverErr = conn.Write([]byte("x"))
		}
	}()
	raw, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer raw.Close()
	raw.SetDeadline(time.Now().Add(10 * time.Second))
	conn := tls.Client(raw, client)
	if clientErr = conn.Handshake(); clientErr == nil {
		c = conn.ConnectionState()
		_, clientErr = conn.Read(make([]byte, 1)) // with TLS 1.3 a refused certificate shows only now
	}
	raw.Close()
	<-done
	return s, c, serverErr, clientErr
}

func TestNodesKnowEachOther(t *testing.T) {
	alpha, beta := of(t, "alpha", testKey), of(t, "beta", testKey)
	s, _, serverErr, clientErr := shake(t, beta.Server(), alpha.Client("beta", APIProtocols...))
	if serverErr != nil || clientErr != nil {
		t.Fatal(serverErr, clientErr)
	}
	if node, ok := beta.Caller(s).Node(); node != "alpha" || !ok || s.NegotiatedProtocol != "h2" {
		t.Errorf("beta takes the caller for %q, protocol %q", node, s.NegotiatedProtocol)
	}
	if _, _, _, err := shake(t, beta.Server(), alpha.Client("gamma", APIProtocols...)); err == nil || !strings.Contains(err.Error(), "not gamma") {
		t.Errorf("beta for gamma: %v", err)
	}
	if _, _, _, err := shake(t, of(t, "beta", otherKey).Server(), alpha.Client("beta", APIProtocols...)); !errors.Is(err, ErrStranger) {
		t.Errorf("a node of another cluster: %v", err)
	}
	if _, _, err, _ := shake(t, beta.Server(), bare(of(t, "alpha", otherKey).Client("beta", APIProtocols...))); !errors.Is(err, ErrStranger) {
		t.Errorf("a caller of another cluster: %v", err)
	}
}

// bare makes a client that believes everybody.
func bare(c *tls.Config) *tls.Config {
	c.VerifyConnection = nil
	return c
}

// Who has no certificate may speak the API's protocols and nothing else. It learns the address that it
// connected to, and no name.
func TestStrangersLearnNothing(t *testing.T) {
	alpha := of(t, "alpha", testKey)
	s, c, serverErr, clientErr := shake(t, alpha.Server(), &tls.Config{InsecureSkipVerify: true, NextProtos: APIProtocols})
	if serverErr != nil || clientErr != nil {
		t.Fatal(serverErr, clientErr)
	}
	if node, ok := alpha.Caller(s).Node(); ok {
		t.Errorf("a caller without a certificate is %q", node)
	}
	for _, cert := range c.PeerCertificates {
		if bytes.Contains(cert.Raw, []byte("alpha")) {
			t.Error("the certificate names the node")
		}
		for _, ip := range cert.IPAddresses {
			if ip.String() != "127.0.0.1" {
				t.Errorf("it names %s, which was not asked", ip)
			}
		}
	}
	if _, _, err, _ := shake(t, alpha.Server(), &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"else"}}); err == nil {
		t.Error("a protocol that nobody serves")
	}
	// A certificate for servers, which every caller gets to see, is none for clients, even with its key.
	stolen, err := alpha.serverCertificate(&net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err, _ := shake(t, alpha.Server(), &tls.Config{InsecureSkipVerify: true, NextProtos: APIProtocols, Certificates: []tls.Certificate{*stolen}}); !errors.Is(err, ErrStranger) {
		t.Errorf("a server's certificate as a client's: %v", err)
	}
	if _, _, err, _ := shake(t, alpha.Server(), &tls.Config{InsecureSkipVerify: true, MaxVersion: tls.VersionTLS12}); err == nil {
		t.Error("TLS 1.2")
	}
}

func TestPinned(t *testing.T) {
	alpha := of(t, "alpha", testKey)
	pin, other := alpha.Fingerprint(), of(t, "x", otherKey).Fingerprint()
	if again, err := FingerprintOf(testKey); err != nil || again != of(t, "beta", testKey).Fingerprint() || again != pin || pin == other {
		t.Errorf("not the same on every node: %v, %v, %v", pin, again, err)
	}
	if got, err := ParseFingerprint(pin.String()); err != nil || got != pin {
		t.Errorf("%v, %v", got, err)
	}
	for _, bad := range []string{"", "sha256:", pin.String()[1:], pin.String()[:70], pin.String() + "00", "sha256:" + strings.Repeat("x", 64)} {
		if _, err := ParseFingerprint(bad); err == nil {
			t.Errorf("%q is accepted", bad)
		}
	}
	if _, _, _, err := shake(t, alpha.Server(), Pinned([]Fingerprint{other, pin})); err != nil {
		t.Error(err)
	}
	// Other programs know the authority by a file, and the node by its address.
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM([]byte(alpha.PEM())) {
		t.Error("the authority's file is unreadable")
	}
	if _, _, _, err := shake(t, alpha.Server(), &tls.Config{RootCAs: pool, ServerName: "127.0.0.1"}); err != nil {
		t.Errorf("by the authority's file: %v", err)
	}
	var met *StrangerError
	if _, _, _, err := shake(t, alpha.Server(), Pinned([]Fingerprint{other})); !errors.As(err, &met) || len(met.Met) != 1 || met.Met[0] != pin {
		t.Errorf("another authority: %v", err)
	}
	// Who shows the right authority beside a certificate of its own has proved nothing.
	liar := of(t, "alpha", otherKey)
	cert, err := liar.serverCertificate(nil)
	if err != nil {
		t.Fatal(err)
	}
	forged := *cert
	forged.Certificate = [][]byte{cert.Certificate[0], alpha.authorities[0].cert.Raw}
	if _, _, _, err := shake(t, &tls.Config{Certificates: []tls.Certificate{forged}, NextProtos: APIProtocols}, Pinned([]Fingerprint{pin})); !errors.Is(err, ErrStranger) {
		t.Errorf("a borrowed authority: %v", err)
	}
}

// Nodes whose clocks are years apart work together; an outsider is told when its clock is the matter, and
// some hours are none.
func TestClocks(t *testing.T) {
	at := func(d time.Duration) *Identity {
		i := of(t, "alpha", testKey)
		i.now = func() time.Time { return time.Now().Add(d) }
		if err := i.Rekey([][]byte{testKey}); err != nil {
			t.Fatal(err)
		}
		return i
	}
	beta := of(t, "beta", testKey)
	for _, d := range []time.Duration{-50 * 365 * 24 * time.Hour, 0, 30 * 365 * 24 * time.Hour, -time.Since(time.Unix(5, 0))} {
		alpha := at(d)
		if _, _, serverErr, clientErr := shake(t, alpha.Server(), beta.Client("alpha", APIProtocols...)); serverErr != nil || clientErr != nil {
			t.Errorf("alpha's clock is off by %v: %v, %v", d, serverErr, clientErr)
		}
		if _, _, serverErr, clientErr := shake(t, beta.Server(), alpha.Client("beta", APIProtocols...)); serverErr != nil || clientErr != nil {
			t.Errorf("alpha's clock is off by %v, it calls: %v, %v", d, serverErr, clientErr)
		}
	}
	pins := []Fingerprint{beta.Fingerprint()}
	for d, good := range map[time.Duration]bool{-70 * time.Hour: true, 70 * time.Hour: true, 80 * time.Hour: false, -100 * 24 * time.Hour: false} {
		_, _, _, err := shake(t, at(d).Server(), Pinned(pins))
		var clock *ClockError
		if errors.As(err, &clock) == good || (err == nil) != good {
			t.Errorf("the node's clock is off by %v: %v", d, err)
		}
	}
}

func TestRenewal(t *testing.T) {
	i, now := of(t, "alpha", testKey), time.Now()
	i.now = func() time.Time { return now }
	serial := func() string {
		c, err := i.serverCertificate(&net.TCPAddr{IP: net.IPv4(10, 0, 0, 1)})
		if err != nil {
			t.Fatal(err)
		}
		if now.Before(c.Leaf.NotBefore) || now.Add(renewed).After(c.Leaf.NotAfter) {
			t.Errorf("at %v it is valid from %v to %v", now, c.Leaf.NotBefore, c.Leaf.NotAfter)
		}
		return c.Leaf.SerialNumber.String()
	}
	first := serial()
	now = now.Add(renewed - time.Minute)
	if serial() != first {
		t.Error("renewed too early")
	}
	now = now.Add(2 * time.Minute)
	second := serial()
	if second == first {
		t.Error("not renewed")
	}
	now = now.Add(-10 * 365 * 24 * time.Hour)
	if serial() == second {
		t.Error("not made anew for a clock that was set back")
	}
}

// Two authorities are valid while the key is changed; what proved somebody before proves nothing once its
// key is dropped.
func TestRekey(t *testing.T) {
	alpha, beta := of(t, "alpha", testKey), of(t, "beta", testKey)
	meet := func(want bool) {
		t.Helper()
		for _, pair := range [][2]*Identity{{alpha, beta}, {beta, alpha}} {
			_, _, serverErr, clientErr := shake(t, pair[0].Server(), pair[1].Client(pair[0].self, APIProtocols...))
			if (serverErr == nil && clientErr == nil) != want {
				t.Errorf("%s calls %s: %v, %v", pair[1].self, pair[0].self, serverErr, clientErr)
			}
		}
	}
	rekey := func(i *Identity, keys ...[]byte) {
		t.Helper()
		if err := i.Rekey(keys); err != nil {
			t.Fatal(err)
		}
	}
	s, _, _, _ := shake(t, beta.Server(), alpha.Client("beta", APIProtocols...))
	old := beta.Caller(s)
	rekey(beta, testKey, otherKey)
	meet(true)
	rekey(alpha, testKey, otherKey)
	rekey(alpha, otherKey, testKey)
	meet(true)
	rekey(beta, otherKey, testKey)
	rekey(beta, otherKey)
	meet(true)
	if node, ok := old.Node(); ok {
		t.Errorf("a connection from before still proves %s", node)
	}
	rekey(alpha, testKey)
	meet(false)
	if beta.Rekey(nil) == nil {
		t.Error("no key is accepted")
	}
	if got := beta.Fingerprint(); got != of(t, "x", otherKey).Fingerprint() {
		t.Error("after a mistake the keys are not as before")
	}
}

func TestAddressOfAnyKind(t *testing.T) {
	i := of(t, "alpha", testKey)
	for _, a := range []net.Addr{nil, &net.UnixAddr{Name: "x"}, net.TCPAddrFromAddrPort(netip.MustParseAddrPort("[fe80::1%eth0]:7400")), net.TCPAddrFromAddrPort(netip.MustParseAddrPort("[::ffff:10.0.0.1]:7400"))} {
		if _, err := i.serverCertificate(a); err != nil {
			t.Errorf("%v: %v", a, err)
		}
	}
}
