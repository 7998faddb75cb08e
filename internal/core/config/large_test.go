package config

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

// largest is a cluster file at every limit at once: 7 nodes, 500 groups, 1,000 resources, names of full length, and
// comments up to the size that a file may have.
func largest() string {
	long := func(prefix string, i int) string {
		name := fmt.Sprintf("%s-%03d", prefix, i)
		return strings.Repeat("n", 63-len(name)) + name
	}
	var b strings.Builder
	fmt.Fprintf(&b, "cluster: %s\ntakeover: 3s\nnodes:\n", long("cluster", 0))
	for i := range MaxNodes {
		fmt.Fprintf(&b, "  %s: { address: 10.88.0.%d }\n", long("node", i), 1+i)
	}
	b.WriteString("groups:\n")
	for i := range maxGroups {
		fmt.Fprintf(&b, "  %s:\n    nodes: [%s, %s]\n    failover: automatic\n    failback: never\n    resources:\n", long("group", i), long("node", i%MaxNodes), long("node", (i+1)%MaxNodes))
		fmt.Fprintf(&b, "      - process:\n          name: %s\n          command: [/usr/bin/%s, --port, '%d']\n          user: daemon\n          environment: { SITE: '%d', MODE: serving }\n", long("process", i), long("server", i), 10000+i, i)
		fmt.Fprintf(&b, "          ready: { tcp: 'localhost:%d', interval: 1s }\n          ports: [ tcp/%d ]\n", 10000+i, 10000+i)
		fmt.Fprintf(&b, "      - vip: { name: %s, address: 10.88.%d.%d/16 }\n", long("address", i), 1+i/250, 1+i%250)
	}
	line := "# " + strings.Repeat("what an administrator wrote about it ", 3) + "\n"
	for b.Len()+len(line) <= maxFile {
		b.WriteString(line)
	}
	return b.String()
}

// A file at its limits is read, and soon enough not to hold a lease up: every node reads it while it serves.
func TestLargestFile(t *testing.T) {
	text := largest()
	began := time.Now()
	s, err := Parse("cluster.yaml", []byte(text), testKinds())
	took := time.Since(began)
	if err != nil {
		t.Fatal(err)
	}
	if len(s.Groups) != maxGroups || len(s.Nodes) != MaxNodes || len(text) < maxFile-200 {
		t.Fatalf("%d groups, %d nodes, %d bytes", len(s.Groups), len(s.Nodes), len(text))
	}
	t.Logf("%d bytes were read within %v", len(text), took)
	if took > 5*time.Second {
		t.Errorf("it took %v to read %d bytes", took, len(text))
	}
}

// One more of anything is refused, with its place.
func TestBeyondTheLargestFile(t *testing.T) {
	more := strings.Replace(largest()[:maxFile-4096], "groups:\n", "groups:\n  one-more:\n    resources: [ { vip: 10.88.9.9/16 } ]\n", 1)
	if _, err := Parse("cluster.yaml", []byte(more), testKinds()); err == nil || !strings.Contains(err.Error(), "501 groups: a cluster has at most 500") {
		t.Errorf("501 groups: %v", err)
	}
	more = strings.Replace(largest()[:maxFile-4096], "    resources:\n", "    resources:\n      - vip: { name: one-more, address: 10.88.9.9/16 }\n", 1)
	if _, err := Parse("cluster.yaml", []byte(more), testKinds()); err == nil || !strings.Contains(err.Error(), "1001 resources up to this group: a cluster has at most 1000") {
		t.Errorf("1001 resources: %v", err)
	}
}

func BenchmarkParseLargest(b *testing.B) {
	text := []byte(largest())
	for b.Loop() {
		if _, err := Parse("cluster.yaml", text, testKinds()); err != nil {
			b.Fatal(err)
		}
	}
}
