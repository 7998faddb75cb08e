// Package identity says in TLS who somebody is: each cluster key has one certificate authority, which every
// node derives for itself, and each node makes its own certificates under it.
//
// Whoever has the key is a node; who has not gets no certificate. So between nodes certificates prove the
// key and name the node, and their dates are not looked at: a machine whose clock stands at 1970 must reach
// its cluster too. Others, who know the authority by its fingerprint, look at the dates as well.
package identity

import (
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"baton/internal/core/cluster"
)

// APIProtocols are the names (ALPN, RFC 7301) of what a listener speaks.
var APIProtocols = []string{"h2", "http/1.1"}

// Identity is who this node is. It is safe for concurrent use.
type Identity struct {
	self cluster.NodeID
	now  func() time.Time

	mu          sync.Mutex
	authorities []*authority // the first signs
	generation  uint64       // counts the changes of authorities
	server      map[netip.Addr]*tls.Certificate
	client      *tls.Certificate
}

// New returns the identity of a node under the cluster's keys, of which the first one signs.
func New(self cluster.NodeID, keys [][]byte) (*Identity, error) {
	i := &Identity{self: self, now: time.Now}
	return i, i.Rekey(keys)
}

// Rekey replaces the keys. Connections that are open stay; Node tells that one no longer proves anything.
func (i *Identity) Rekey(keys [][]byte) error {
	if len(keys) == 0 {
		return errors.New("make a certificate authority: there is no cluster key")
	}
	var all []*authority
	for _, key := range keys {
		a, err := newAuthority(key)
		if err != nil {
			return fmt.Errorf("make a certificate authority of the cluster key: %w", err)
		}
		all = append(all, a)
	}
	client, err := all[0].issue(i.self, forClient, netip.Addr{}, i.now())
	if err != nil {
		return fmt.Errorf("make a certificate for node %s: %w", i.self, err)
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	i.authorities, i.client, i.server = all, client, make(map[netip.Addr]*tls.Certificate)
	i.generation++
	return nil
}

// Fingerprint returns the fingerprint of the authority that signs, by which outsiders know this cluster.
func (i *Identity) Fingerprint() Fingerprint {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.authorities[0].fingerprint
}

// PEM returns that authority's certificate (RFC 7468), for programs that know authorities by a file.
func (i *Identity) PEM() string {
	i.mu.Lock()
	defer i.mu.Unlock()
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: i.authorities[0].cert.Raw}))
}

func (i *Identity) present() (all []*authority, generation uint64) {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.authorities, i.generation
}

// Server returns what a listener of this node needs. Who calls may prove to be a node; a certificate that proves nothing ends the handshake. Certificates are renewed by themselves.
func (i *Identity) Server() *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS13,
		GetConfigForClient: func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
			cert, err := i.serverCertificate(hello.Conn.LocalAddr())
			if err != nil {
				return nil, err
			}
			c := &tls.Config{
				MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{*cert}, SessionTicketsDisabled: true,
				NextProtos: APIProtocols, ClientAuth: tls.RequestClientCert, VerifyConnection: i.verifyClient, ClientCAs: i.pool(),
			}
			return c, nil
		},
	}
}

// pool only tells a browser not to offer certificates of others; verifyClient decides.
func (i *Identity) pool() *x509.CertPool {
	all, _ := i.present()
	pool := x509.NewCertPool()
	for _, a := range all {
		pool.AddCert(a.cert)
	}
	return pool
}

// serverCertificate returns the certificate for one of this node's addresses. It names no more than that
// address: who has neither key nor token learns from it nothing that it did not know.
func (i *Identity) serverCertificate(local net.Addr) (*tls.Certificate, error) {
	var address netip.Addr
	if t, ok := local.(*net.TCPAddr); ok {
		address = t.AddrPort().Addr().Unmap().WithZone("")
	}
	now := i.now()
	i.mu.Lock()
	defer i.mu.Unlock()
	if c := i.server[address]; c != nil && current(c.Leaf, now) {
		return c, nil
	}
	c, err := i.authorities[0].issue(i.self, forServer, address, now)
	if err != nil {
		return nil, fmt.Errorf("make a certificate for %s: %w", address, err)
	}
	i.server[address] = c
	return c, nil
}

// Client returns what a connection of this node to another needs.
func (i *Identity) Client(to cluster.NodeID, protocols ...string) *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS13, NextProtos: protocols,
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			i.mu.Lock()
			defer i.mu.Unlock()
			return i.client, nil
		},
		// Done by VerifyConnection: by any of the cluster's authorities, whatever the clock says.
		InsecureSkipVerify: true,
		VerifyConnection: func(s tls.ConnectionState) error {
			all, _ := i.present()
			var err error
			for _, a := range all {
				if err = a.verify(s.PeerCertificates, forServer, time.Time{}); err == nil {
					return a.names(s.PeerCertificates[0], to)
				}
			}
			return err
		},
	}
}

// verifyClient refuses a certificate that is none of this cluster's; to have none is another matter.
func (i *Identity) verifyClient(s tls.ConnectionState) error {
	if len(s.PeerCertificates) == 0 {
		return nil
	}
	all, _ := i.present()
	var err error
	for _, a := range all {
		if err = a.verify(s.PeerCertificates, forClient, time.Time{}); err == nil {
			return nil
		}
	}
	return err
}

// Caller is who is at the other end of a connection that was accepted under Server.
type Caller struct {
	identity   *Identity
	state      tls.ConnectionState
	mu         sync.Mutex
	generation uint64 // of the authorities that proved it last
	node       cluster.NodeID
}

// Caller returns who is at the other end of a connection whose handshake is over.
func (i *Identity) Caller(state tls.ConnectionState) *Caller {
	return &Caller{identity: i, state: state}
}

// Node returns which node the caller has proved to be, under the keys that are valid now; false: none.
func (c *Caller) Node() (cluster.NodeID, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, generation := c.identity.present(); generation != c.generation {
		c.generation, c.node = generation, ""
		if len(c.state.PeerCertificates) > 0 && c.identity.verifyClient(c.state) == nil {
			c.node = cluster.NodeID(c.state.PeerCertificates[0].Subject.CommonName)
		}
	}
	return c.node, c.node != ""
}

// Fingerprint names an authority: SHA-256 of its public key (SubjectPublicKeyInfo, as in RFC 7469).
type Fingerprint [sha256.Size]byte

const fingerprintWord = "sha256:"

// String returns the fingerprint as people copy it.
func (f Fingerprint) String() string { return fingerprintWord + hex.EncodeToString(f[:]) }

// ParseFingerprint reads what String wrote.
func ParseFingerprint(text string) (f Fingerprint, err error) {
	code, found := strings.CutPrefix(strings.TrimSpace(text), fingerprintWord)
	raw, err := hex.DecodeString(code)
	if !found || err != nil || len(raw) != len(f) {
		return f, fmt.Errorf("%q is no fingerprint: it is %s and %d hexadecimal digits", text, fingerprintWord, 2*len(f))
	}
	return Fingerprint(raw), nil
}

// FingerprintOf returns the fingerprint of the authority of a cluster key.
func FingerprintOf(key []byte) (Fingerprint, error) {
	a, err := newAuthority(key)
	if err != nil {
		return Fingerprint{}, fmt.Errorf("make a certificate authority of the cluster key: %w", err)
	}
	return a.fingerprint, nil
}

// ErrStranger means that who answered has not proved to belong to an authority that was asked for.
var ErrStranger = errors.New("its certificate is not of the cluster that is expected there")

// StrangerError says whom somebody met.
type StrangerError struct {
	Met []Fingerprint // the authorities that it named; empty: none
}

func (e *StrangerError) Error() string {
	if len(e.Met) == 0 {
		return ErrStranger.Error()
	}
	return fmt.Sprintf("%v: its authority is %s", ErrStranger, e.Met[0])
}

// Is makes a StrangerError an ErrStranger.
func (e *StrangerError) Is(target error) bool { return target == ErrStranger }

// ClockError means that a certificate is good, and yet not at the time that this host's clock shows.
type ClockError struct {
	Now, From, Until time.Time
}

func (e *ClockError) Error() string {
	return fmt.Sprintf("the clocks are apart: this host's says %s, and the other's certificate is valid from %s to %s",
		e.Now.UTC().Format(time.DateTime), e.From.UTC().Format(time.DateTime), e.Until.UTC().Format(time.DateTime))
}

// Pinned returns what a connection from outside needs, to any node of a cluster whose authority has one of
// the fingerprints. It fails with a StrangerError or a ClockError.
func Pinned(pins []Fingerprint) *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS13, NextProtos: APIProtocols,
		// Done by VerifyConnection: the authority is known by its fingerprint, and any of its nodes will do.
		InsecureSkipVerify: true,
		VerifyConnection: func(s tls.ConnectionState) error {
			stranger := &StrangerError{}
			for _, cert := range s.PeerCertificates {
				if !cert.IsCA {
					continue
				}
				a := &authority{cert: cert, fingerprint: sha256.Sum256(cert.RawSubjectPublicKeyInfo)}
				if !slices.Contains(pins, a.fingerprint) {
					stranger.Met = append(stranger.Met, a.fingerprint)
					continue
				}
				if err := a.verify(s.PeerCertificates, forServer, time.Time{}); err != nil {
					return err
				}
				return inTime(s.PeerCertificates[0], time.Now())
			}
			return stranger
		},
	}
}

func inTime(leaf *x509.Certificate, now time.Time) error {
	if now.Before(leaf.NotBefore) || now.After(leaf.NotAfter) {
		return &ClockError{Now: now, From: leaf.NotBefore, Until: leaf.NotAfter}
	}
	return nil
}
