package identity

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"fmt"
	"math/big"
	"net"
	"net/netip"
	"slices"
	"time"

	"baton/internal/core/cluster"
)

const (
	authorityInfo = "baton authority v1"
	nameInfo      = "baton node name v1 "
	nameSize      = 16 // bytes of a node's name in certificates for all eyes
)

// The dates of certificates. A clock that is wrong by less than tolerated is no obstacle to anybody.
const (
	lifetime  = 90 * 24 * time.Hour
	renewed   = 30 * 24 * time.Hour // a certificate that is this old is made anew
	tolerated = 3 * 24 * time.Hour
)

// An authority is valid at any time, as the key is that it is derived from.
var (
	validFrom  = time.Unix(0, 0).UTC()
	validUntil = time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC)
)

// usage is what a certificate serves for.
type usage x509.ExtKeyUsage

const (
	forServer = usage(x509.ExtKeyUsageServerAuth)
	forClient = usage(x509.ExtKeyUsageClientAuth)
)

// authority is the certificate authority of one cluster key.
type authority struct {
	cert        *x509.Certificate
	private     *ecdsa.PrivateKey
	key         []byte
	fingerprint Fingerprint
}

// derive returns the private key of a cluster key's authority, on every node the same. Of all numbers of 32
// bytes, one in 2^32 is no key of P-256: then the next is taken. The curve is one that browsers know.
func derive(key []byte) (*ecdsa.PrivateKey, error) {
	for try := byte(0); ; try++ {
		raw, err := hkdf.Key(sha256.New, key, nil, authorityInfo+string(try), 32)
		if err != nil {
			return nil, err
		}
		if private, err := ecdsa.ParseRawPrivateKey(elliptic.P256(), raw); err == nil || try == 255 {
			return private, err
		}
	}
}

// newAuthority derives the authority of a key. Its certificate differs from node to node in the signature,
// which is made with chance; its name and key are what counts.
func newAuthority(key []byte) (*authority, error) {
	private, err := derive(key)
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "baton cluster authority"},
		NotBefore: validFrom, NotAfter: validUntil,
		KeyUsage: x509.KeyUsageCertSign, BasicConstraintsValid: true, IsCA: true, MaxPathLenZero: true,
	}
	raw, err := x509.CreateCertificate(rand.Reader, template, template, private.Public(), private)
	if err != nil {
		return nil, err
	}
	cert, err := x509.ParseCertificate(raw)
	if err != nil {
		return nil, err
	}
	return &authority{cert: cert, private: private, key: slices.Clone(key), fingerprint: sha256.Sum256(cert.RawSubjectPublicKeyInfo)}, nil
}

// issue makes a certificate, whose private key is random and never leaves this process. One for servers is
// shown to everybody who connects: it names the node in a form that only the key's owners understand, and
// the address connected to. One for clients is shown to nodes only, and names the node.
func (a *authority) issue(node cluster.NodeID, use usage, address netip.Addr, now time.Time) (*tls.Certificate, error) {
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		return nil, err
	}
	leaf := &x509.Certificate{
		SerialNumber: serial, NotBefore: now.Add(-tolerated).UTC(), NotAfter: now.Add(lifetime).UTC(),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsage(use)},
	}
	if leaf.NotBefore.Before(validFrom) {
		leaf.NotBefore = validFrom
	}
	if use == forClient {
		leaf.Subject = pkix.Name{CommonName: string(node)}
	} else {
		name, err := a.nameOf(node)
		if err != nil {
			return nil, err
		}
		leaf.Subject, leaf.DNSNames = pkix.Name{CommonName: "baton"}, []string{name}
		if address.IsValid() {
			leaf.IPAddresses = []net.IP{address.AsSlice()}
		}
	}
	raw, err := x509.CreateCertificate(rand.Reader, leaf, a.cert, private.Public(), a.private)
	if err != nil {
		return nil, err
	}
	if leaf, err = x509.ParseCertificate(raw); err != nil {
		return nil, err
	}
	return &tls.Certificate{Certificate: [][]byte{raw, a.cert.Raw}, PrivateKey: private, Leaf: leaf}, nil
}

// current tells whether a certificate need not be renewed yet; also not where the clock was set back.
func current(leaf *x509.Certificate, now time.Time) bool {
	made := leaf.NotAfter.Add(-lifetime)
	return !now.Before(made.Add(-tolerated)) && now.Before(made.Add(renewed))
}

// nameOf returns a node's name in certificates for all eyes.
func (a *authority) nameOf(node cluster.NodeID) (string, error) {
	sum, err := hkdf.Key(sha256.New, a.key, nil, nameInfo+string(node), nameSize)
	if err != nil {
		return "", err
	}
	return hex.EncodeToString(sum) + ".baton", nil
}

// names tells whether a certificate for servers is that of a node.
func (a *authority) names(leaf *x509.Certificate, node cluster.NodeID) error {
	name, err := a.nameOf(node)
	if err == nil && !slices.Contains(leaf.DNSNames, name) {
		err = fmt.Errorf("another node of the cluster answers there, not %s", node)
	}
	return err
}

// verify tells whether a chain's first certificate is of this authority, and for this use, at a time; the
// zero time: at any.
func (a *authority) verify(chain []*x509.Certificate, use usage, at time.Time) error {
	if len(chain) == 0 {
		return ErrStranger
	}
	leaf := chain[0]
	if at.IsZero() {
		at = leaf.NotBefore
	}
	roots := x509.NewCertPool()
	roots.AddCert(a.cert)
	if _, err := leaf.Verify(x509.VerifyOptions{Roots: roots, CurrentTime: at, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsage(use)}}); err != nil {
		return fmt.Errorf("%w: %w", ErrStranger, err)
	}
	return nil
}
