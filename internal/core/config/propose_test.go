package config

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"baton/internal/core/cluster"
)

func threeNodes() []cluster.NodeSpec {
	return []cluster.NodeSpec{
		{ID: "alpha", Address: netip.MustParseAddr("10.0.0.11")},
		{ID: "beta", Address: netip.MustParseAddr("10.0.0.12")},
		{ID: "gamma", Address: netip.MustParseAddr("fd00::13"), Role: cluster.Witness},
	}
}

// TestPropose: what is proposed says what was answered.
func TestPropose(t *testing.T) {
	text := Propose(Answers{Cluster: "web", Takeover: time.Second, KeyFile: "/srv/key", Nodes: threeNodes(), Command: "python3 -m http.server 8080 --directory '/srv/w w'",
		User: "www-data", Port: 8080, VIPs: []netip.Prefix{netip.MustParsePrefix("10.0.0.50/24")}})
	spec, err := Parse("proposed", text, testKinds())
	if err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	got := show(spec)
	for _, want := range []string{"cluster web takeover=1s", "key=/srv/key", "node gamma witness fd00::13", "group web on [alpha beta]",
		`command: ["python3" "-m" "http.server" "8080" "--directory" "/srv/w w"]`, `user: "www-data"`, "tcp:localhost:8080", "address: 10.0.0.50/24"} {
		if !strings.Contains(got, want) {
			t.Errorf("lacks %q:\n%s\n%s", want, got, text)
		}
	}
}

// TestProposeNothing: without a service the file is good too, and shows how a group is written.
func TestProposeNothing(t *testing.T) {
	text := string(Propose(Answers{Cluster: "web", Nodes: threeNodes()}))
	spec, err := Parse("proposed", []byte(text), testKinds())
	if err != nil || len(spec.Groups) != 0 || spec.Timing.Takeover != DefaultTakeover {
		t.Fatalf("%v, %+v\n%s", err, spec, text)
	}
	at := strings.Index(text, "#groups:")
	if at < 0 {
		t.Fatalf("no example:\n%s", text)
	}
	// The example is good once it is uncommented.
	example := strings.ReplaceAll(strings.ReplaceAll("\n"+text[at:], "\n#", "\n"), "ADDRESS/BITS", "10.0.0.50/24")
	if spec, err := Parse("uncommented", []byte(text[:at]+example), testKinds()); err != nil || len(spec.Groups) != 1 {
		t.Errorf("%v\n%s", err, example)
	}
}

// TestProposeAny: whatever is answered within the rules of the file, Parse reads it back.
func TestProposeAny(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		name := rapid.OneOf(rapid.StringMatching(`[a-z0-9][a-z0-9-]{0,8}`), rapid.SampledFrom([]string{"null", "true", "no", "y", "0", "1e3", "0x1f", "1-1", "00", "1"}))
		a := Answers{Cluster: name.Draw(t, "cluster"), Takeover: rapid.SampledFrom([]time.Duration{0, 100 * time.Millisecond, time.Minute}).Draw(t, "takeover")}
		names := rapid.SliceOfNDistinct(name, 3, 7, rapid.ID).Draw(t, "nodes")
		for i, n := range names {
			role := rapid.SampledFrom([]cluster.Role{cluster.Member, cluster.Spare, cluster.Witness}).Draw(t, "role")
			if i == 0 {
				role = cluster.Member
			}
			a.Nodes = append(a.Nodes, cluster.NodeSpec{ID: cluster.NodeID(n), Role: role, Address: netip.MustParseAddr(fmt.Sprintf(rapid.SampledFrom([]string{"10.0.0.%d", "fd00::%d"}).Draw(t, "address"), i+1))})
		}
		words := []string{}
		for _, w := range rapid.SliceOfN(rapid.StringMatching(`[ -~äö]{1,12}`), 1, 4).Draw(t, "words") {
			words = append(words, "'"+strings.ReplaceAll(w, "'", "X")+"'")
		}
		a.Command, a.User = strings.Join(words, " "), rapid.SampledFrom([]string{"www-data", "root", "1000", "1000:1000", "no"}).Draw(t, "user")
		a.Port = rapid.SampledFrom([]uint16{0, 80}).Draw(t, "port")
		if rapid.Bool().Draw(t, "vip") {
			a.VIPs = []netip.Prefix{netip.MustParsePrefix(rapid.SampledFrom([]string{"10.0.0.50/24", "fd00::50/64"}).Draw(t, "address"))}
		}
		text := Propose(a)
		spec, err := Parse("proposed", text, testKinds())
		if err != nil {
			t.Fatalf("%v\n%s", err, text)
		}
		if spec.Cluster != a.Cluster || len(spec.Nodes) != len(a.Nodes) || len(spec.Groups) != 1 || spec.Groups[0].Resources[0].Fields["user"] != a.User {
			t.Fatalf("%+v\n%s", spec, text)
		}
		command := spec.Groups[0].Resources[0].Fields["command"].([]string)
		for i, w := range words {
			if strings.Trim(w, "'") != strings.Trim(command[i], "'") {
				t.Fatalf("%q became %q", w, command[i])
			}
		}
	})
}
