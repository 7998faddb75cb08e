package link

import (
	"crypto/ed25519"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"math/big"
	"net"
	"net/netip"
	"time"

	"baton/internal/core/cluster"
)

// ALPN is the protocol name of large messages in TLS, by which a listener tells them from other callers.
const ALPN = "baton-link/1"

const authorityInfo = "baton authority v1"

// Certificates are valid at any time: what they prove is the possession of the cluster key, and a machine
// whose clock stands at 1970 must reach its cluster too.
var (
	validFrom  = time.Unix(0, 0).UTC()
	validUntil = time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC)
)

// Identity returns a new certificate of a node, which names the node and the addresses given, and the pool
// of the one authority that its peers trust. The authority is derived from the cluster key, so that it is
// the same on every node; the certificate's own key is random and never leaves this process.
func Identity(key []byte, node cluster.NodeID, addresses []netip.Addr) (tls.Certificate, *x509.CertPool, error) {
	cert, pool, err := identity(key, node, addresses)
	if err != nil {
		return tls.Certificate{}, nil, fmt.Errorf("make a certificate for node %s: %w", node, err)
	}
	return cert, pool, nil
}

func identity(key []byte, node cluster.NodeID, addresses []netip.Addr) (tls.Certificate, *x509.CertPool, error) {
	seed, err := hkdf.Key(sha256.New, key, nil, authorityInfo, ed25519.SeedSize)
	if err != nil {
		return tls.Certificate{}, nil, err
	}
	authorityKey := ed25519.NewKeyFromSeed(seed)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "baton cluster authority"},
		NotBefore: validFrom, NotAfter: validUntil,
		KeyUsage: x509.KeyUsageCertSign, BasicConstraintsValid: true, IsCA: true, MaxPathLenZero: true,
	}
	raw, err := x509.CreateCertificate(rand.Reader, template, template, authorityKey.Public(), authorityKey)
	if err != nil {
		return tls.Certificate{}, nil, err
	}
	authority, err := x509.ParseCertificate(raw)
	if err != nil {
		return tls.Certificate{}, nil, err
	}
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return tls.Certificate{}, nil, err
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		return tls.Certificate{}, nil, err
	}
	leaf := &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: string(node)}, DNSNames: []string{string(node)},
		NotBefore: validFrom, NotAfter: validUntil, KeyUsage: x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	for _, a := range addresses {
		leaf.IPAddresses = append(leaf.IPAddresses, net.IP(a.AsSlice()))
	}
	raw, err = x509.CreateCertificate(rand.Reader, leaf, authority, public, authorityKey)
	if err != nil {
		return tls.Certificate{}, nil, err
	}
	pool := x509.NewCertPool()
	pool.AddCert(authority)
	return tls.Certificate{Certificate: [][]byte{raw}, PrivateKey: private}, pool, nil
}
