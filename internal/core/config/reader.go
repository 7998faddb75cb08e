package config

import (
	"fmt"
	"math"
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"baton/internal/core/cluster"
)

var (
	nameRule = regexp.MustCompile(namePattern)
	envRule  = regexp.MustCompile(envPattern)
)

// reader turns the tree into a specification. Its methods note what is wrong and go on; what they
// return besides false is the zero value, so that one error does not hide the next.
type reader struct {
	complaints
	kinds []cluster.KindSpec
	keys  map[string][]key // of resources, by kind
	// keyOf is what nodes call a group between each other.
	keyOf func(cluster.GroupID) uint64
	spec  *cluster.Spec
	// placed are the resources with their places, for the rules between them.
	placed []placed
	// among are the nodes that may run what is being read.
	among []cluster.NodeID
	// reachAll is the file's own reach; targets are all that groups are to reach, with their places.
	reachAll cluster.ReachSpec
	targets  []targetAt
	// nodeAt and linkAt are the places of the nodes' addresses and of the links.
	nodeAt map[cluster.NodeID]position
}

// section is a map whose keys were checked.
type section map[string]*node

// section checks the keys of a map against those known and returns them; nil if n is no map.
func (r *reader) section(n *node, what string, keys []key) section {
	if n.kind != isMap {
		r.wants(n, what, "a map")
		return nil
	}
	known, meant, out := []string{}, []string{}, make(section)
	for _, k := range keys {
		if k.later == "" {
			known = append(known, k.name)
		}
	}
	for _, e := range n.entries {
		k := keyOf(keys, e.key)
		switch {
		case k == nil:
			hint := didYouMean(e.key, known)
			meant = append(meant, hint)
			r.fail(e.position, hint, "unknown key %q in %s", clip(e.key), what)
		case k.later != "":
			meant = append(meant, write(k.instead))
			r.fail(e.position, k.later, "%q in %s is %s", e.key, what, notInThisVersion)
		default:
			out[e.key] = e.value
		}
	}
	for _, k := range keys {
		// A key that is only misspelt is not reported as lacking too.
		if k.required && out[k.name] == nil && !slices.Contains(meant, write(k.name)) {
			r.fail(n.position, "", "%s lacks the key %q", what, k.name)
		}
	}
	return out
}

// wants notes a value of the wrong type.
func (r *reader) wants(n *node, what, wanted string) {
	r.fail(n.position, "", "%s must be %s, not %s", what, wanted, describe(n))
}

// clip bounds a text from the file that is repeated within a message.
func clip(text string) string {
	const most = 60
	if runes := []rune(text); len(runes) > most {
		return string(runes[:most]) + "…"
	}
	return text
}

func describe(n *node) string {
	switch n.kind {
	case isMap:
		return "a map"
	case isList:
		if len(n.items) == 0 {
			return "an empty list"
		}
		return "a list"
	case isText:
		return fmt.Sprintf("%q", clip(n.text))
	case isInt, isFloat:
		return "the number " + clip(n.text)
	case isBool:
		return n.text
	}
	return "empty"
}

// scalar returns the text of a text or a number; a list, a map, a truth value or nothing is an error.
func (r *reader) scalar(n *node, what, wanted string) (string, bool) {
	switch n.kind {
	case isText, isInt, isFloat:
		return n.text, true
	}
	r.wants(n, what, wanted)
	return "", false
}

func (r *reader) text(n *node, what string) (string, bool) {
	if n.kind == isText {
		return n.text, true
	}
	hint := ""
	if n.kind == isInt || n.kind == isFloat || n.kind == isBool {
		hint = fmt.Sprintf("write %q, with the quotes", n.text)
	}
	r.fail(n.position, hint, "%s must be a text, not %s", what, describe(n))
	return "", false
}

// word reads one of a few words.
func (r *reader) word(n *node, what string, words ...string) (string, bool) {
	text, ok := r.text(n, what)
	if !ok {
		return "", false
	}
	for _, w := range words {
		if text == w {
			return w, true
		}
	}
	r.fail(n.position, didYouMean(text, words), "%s can't be %q", what, clip(text))
	return "", false
}

// goodName checks a name that the file gives to something.
func (r *reader) goodName(at position, what, name string) bool {
	if nameRule.MatchString(name) {
		return true
	}
	hint := "write 1 to 63 of a-z, 0-9 and -, not beginning with -"
	if lower := strings.ReplaceAll(strings.ToLower(name), "_", "-"); nameRule.MatchString(lower) {
		hint = fmt.Sprintf("write %q: a-z, 0-9 and - make a name", lower)
	}
	r.fail(at, hint, "%q is no name for %s", clip(name), what)
	return false
}

func (r *reader) duration(n *node, what string, from, to time.Duration) (time.Duration, bool) {
	text, ok := r.scalar(n, what, "a duration such as 3s")
	if !ok {
		return 0, false
	}
	if n.kind != isText || strings.Trim(text, "0123456789.+-") == "" {
		r.fail(n.position, fmt.Sprintf("write %ss, or another of the units ms, s, m and h", clip(text)), "%s has no unit", what)
		return 0, false
	}
	d, err := time.ParseDuration(text)
	switch {
	case err != nil:
		r.fail(n.position, "write it like 250ms, 3s, 10m or 1h30m", "%s: %q is no duration", what, clip(text))
	case d < from:
		r.fail(n.position, fmt.Sprintf("write %s or more", brief(from)), "%s is %s, less than the least, %s", what, clip(text), brief(from))
	case d > to:
		r.fail(n.position, fmt.Sprintf("write %s or less", brief(to)), "%s is %s, more than the most, %s", what, clip(text), brief(to))
	default:
		return d, true
	}
	return 0, false
}

// brief writes a duration without its zero parts: 10m, not 10m0s.
func brief(d time.Duration) string {
	text := d.String()
	if strings.HasSuffix(text, "m0s") {
		text = strings.TrimSuffix(text, "0s")
	}
	if strings.HasSuffix(text, "h0m") {
		text = strings.TrimSuffix(text, "0m")
	}
	return text
}

func (r *reader) integer(n *node, what string, from, to int64) (int64, bool) {
	if n.kind != isInt {
		r.wants(n, what, "a whole number")
		return 0, false
	}
	i, err := strconv.ParseInt(n.text, 10, 64)
	switch {
	case err != nil || strconv.FormatInt(i, 10) != n.text:
		r.fail(n.position, "", "%s: %q is no plain decimal number that fits", what, clip(n.text))
	case i < from && to == math.MaxInt64: // nobody is helped by that most
		r.fail(n.position, "", "%s is %d, less than the least, %d", what, i, from)
	case i < from || i > to:
		r.fail(n.position, "", "%s is %d, outside %d to %d", what, i, from, to)
	default:
		return i, true
	}
	return 0, false
}

func (r *reader) truth(n *node, what string) (value, ok bool) {
	if n.kind == isBool && (n.text == "true" || n.text == "false") {
		return n.text == "true", true
	}
	r.fail(n.position, "write true or false", "%s must be true or false, not %s", what, describe(n))
	return false, false
}

// address reads an address of a host.
func (r *reader) address(n *node, what string) (netip.Addr, bool) {
	text, ok := r.scalar(n, what, "an address such as 10.0.0.11")
	if !ok {
		return netip.Addr{}, false
	}
	a, err := netip.ParseAddr(text)
	if err == nil {
		return a, r.goodAddress(n.position, what, a)
	}
	hint := "write an IPv4 address such as 10.0.0.11, or an IPv6 address such as fd00::11"
	if p, err := netip.ParsePrefix(text); err == nil {
		r.fail(n.position, fmt.Sprintf("write %s", p.Addr()), "%s: %q is an address with a prefix length", what, clip(text))
	} else if _, err := netip.ParseAddrPort(text); err == nil {
		r.fail(n.position, "write the address alone; ports stand under links", "%s: %q is an address with a port", what, clip(text))
	} else if strings.ContainsFunc(text, isNameLetter) && !strings.Contains(text, ":") {
		r.fail(n.position, hint+": a failover must not wait for a name server", "%s: %q is a name, not an address", what, clip(text))
	} else {
		r.fail(n.position, hint, "%s: %q is no address", what, clip(text))
	}
	return netip.Addr{}, false
}

func isNameLetter(c rune) bool { return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' }

// goodAddress refuses addresses that no host can be reached under from another.
func (r *reader) goodAddress(at position, what string, a netip.Addr) bool {
	switch {
	case a.Zone() != "":
		r.fail(at, "use an address that means the same on every node", "%s: %s has a zone, which is each host's own", what, a)
	case a.Is4In6():
		r.fail(at, fmt.Sprintf("write %s", a.Unmap()), "%s: %s is an IPv4 address in IPv6 clothes", what, a)
	case a.IsUnspecified(), a.IsMulticast(), a == netip.AddrFrom4([4]byte{255, 255, 255, 255}):
		r.fail(at, "", "%s: %s is no address of a host", what, a)
	case a.Is6() && a.IsLinkLocalUnicast():
		r.fail(at, "use a unique local address, fd00::/8", "%s: %s is link-local, which means something else on every interface", what, a)
	default:
		return true
	}
	return false
}

func (r *reader) prefix(n *node, what string) (netip.Prefix, bool) {
	text, ok := r.scalar(n, what, "an address with its prefix length, such as 10.0.0.50/24")
	if !ok {
		return netip.Prefix{}, false
	}
	p, err := netip.ParsePrefix(text)
	if err == nil {
		return p, r.goodAddress(n.position, what, p.Addr())
	}
	hint := "write an address with its prefix length, such as 10.0.0.50/24 or fd00::50/64"
	if a, err := netip.ParseAddr(text); err == nil {
		bits := 24
		if a.Is6() {
			bits = 64
		}
		r.fail(n.position, fmt.Sprintf("write %s/%d, or the prefix length that the network has", a, bits), "%s: %s lacks its prefix length", what, clip(text))
	} else if strings.ContainsFunc(text, isNameLetter) && !strings.Contains(text, ":") {
		r.fail(n.position, hint, "%s: %q is a name, not an address", what, clip(text))
	} else {
		r.fail(n.position, hint, "%s: %q is no address with a prefix length", what, clip(text))
	}
	return netip.Prefix{}, false
}

func (r *reader) port(n *node, what string) (cluster.Port, bool) {
	text, ok := r.scalar(n, what, "a port such as tcp/80")
	if !ok {
		return cluster.Port{}, false
	}
	protocol, number, found := strings.Cut(text, "/")
	if !found {
		protocol, number = "tcp", text
	}
	i, err := strconv.ParseUint(number, 10, 16)
	if err != nil || i == 0 || (protocol != "tcp" && protocol != "udp") {
		r.fail(n.position, "write tcp/80, udp/53 or 80, with a number from 1 to 65535", "%s: %q is no port", what, clip(text))
		return cluster.Port{}, false
	}
	return cluster.Port{Protocol: protocol, Number: uint16(i)}, true
}

// words reads a list of words, or a text that is split as a shell splits words.
func (r *reader) words(n *node, what string) ([]string, bool) {
	if n.kind == isText {
		words, err := splitWords(n.text)
		if err != nil {
			r.fail(n.position, `put it in quotes, or run a shell: [sh, -c, "…"]`, "%s: %v", what, err)
			return nil, false
		}
		return words, true
	}
	if n.kind != isList {
		r.wants(n, what, "a command line or a list of words")
		return nil, false
	}
	words, good := []string{}, true
	for _, item := range n.items {
		// A number in a list of words is meant as its text.
		if word, ok := r.scalar(item, "a word of "+what, "a text"); ok {
			words = append(words, word)
		} else {
			good = false
		}
	}
	return words, good
}

// one returns the items of a list, or a single value as a list of one.
func one(n *node) []*node {
	if n.kind == isList {
		return n.items
	}
	return []*node{n}
}
