package addr

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"baton/internal/core/cluster"
)

// The kernel is asked for all addresses once; from then on the table follows whatever any program does.
func TestTableFollows(t *testing.T) {
	s := newSegment(t, "a")
	s.settled("a")
	r := s.open("a")
	defer r.close()
	news := r.table.watch()
	dumps := 0
	counted := func(family int) ([]present, bool, error) { dumps++; return r.dump(family) }
	same := func(after string) {
		t.Helper()
		for _, family := range []int{unix.AF_INET, unix.AF_INET6} {
			for end := time.Now().Add(soon); ; time.Sleep(10 * time.Millisecond) {
				got, err := r.table.addresses(family, counted)
				want, _, wantErr := r.dump(family)
				if err == nil && wantErr == nil && slices.Equal(sorted(got), sorted(want)) {
					break
				}
				// What the kernel gives an interface by itself, it tells of once it has looked for duplicates; of an
				// IPv6 address without that a moment later, too.
				late := strings.HasPrefix(after, "link") || strings.Contains(after, "nodad")
				if !late || time.Now().After(end) {
					t.Fatalf("after %s the table has\n%v (%v), the kernel\n%v (%v)", after, sorted(got), err, sorted(want), wantErr)
				}
			}
		}
	}
	same("nothing")
	for _, step := range []string{
		"address add 10.77.0.60/24 dev eth0", "address add 10.77.0.61/24 dev eth0", "address add 10.77.0.60/32 dev eth0",
		"address add fd77::60/64 dev eth0 nodad", "address change fd77::60/64 dev eth0 preferred_lft 0",
		"address change 10.77.0.61/24 dev eth0 valid_lft 100 preferred_lft 50",
		"address add 10.90.0.1 peer 10.90.0.2/32 dev eth0", "address del 10.90.0.1 peer 10.90.0.2/32 dev eth0",
		"link add name eth5 type veth peer name eth6", "address add 10.80.0.1/24 dev eth5", "address add fd80::1/64 dev eth5 nodad",
		"link set eth5 up", "link set eth6 up", "link set eth5 down", "link del eth5",
		"address del 10.77.0.1/24 dev eth0", "address flush dev eth0",
	} {
		s.ip("a", "%s", step)
		same(step)
		if strings.HasPrefix(step, "address") {
			select {
			case <-news:
			case <-time.After(soon):
				t.Fatalf("no word of %s", step)
			}
		}
	}
	if dumps != 2 {
		t.Errorf("the kernel was asked for all addresses %d times, want once for each family", dumps)
	}
}

// What this process has added or removed is in the table at once: the kernel tells later of some.
func TestTableHasOwn(t *testing.T) {
	s := newSegment(t, "a")
	s.settled("a")
	r := s.open("a")
	defer r.close()
	i, err := r.byName("eth0")
	if err != nil {
		t.Fatal(err)
	}
	for n := range 200 {
		for _, p := range []netip.Prefix{netip.MustParsePrefix(fmt.Sprintf("10.77.0.%d/24", 20+n)), netip.MustParsePrefix(fmt.Sprintf("fd77::1:%d/64", n))} {
			for _, step := range []func(int, netip.Prefix) error{r.add, r.remove, r.add} {
				err := step(i.index, p)
				got, gotErr := r.addresses(familyOf(p.Addr()))
				want, _, wantErr := r.dump(familyOf(p.Addr()))
				if err := errors.Join(err, gotErr, wantErr); err != nil || len(got) != len(want) {
					t.Fatalf("%s: the table has %d addresses, the kernel %d (%v)", p, len(got), len(want), err)
				}
			}
		}
	}
}

// Where notices were lost, the kernel is asked again.
func TestTableOverrun(t *testing.T) {
	s := newSegment(t, "a")
	r := s.open("a")
	defer r.close()
	if _, err := r.addresses(unix.AF_INET); err != nil {
		t.Fatal(err)
	}
	if err := r.table.raw.Control(func(fd uintptr) { _ = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUF, 1) }); err != nil {
		t.Fatal(err)
	}
	r.table.mu.Lock() // nobody reads
	var batch strings.Builder
	for n := range 200 {
		fmt.Fprintf(&batch, "address add 10.77.1.%d/32 dev eth0\n", n+1)
	}
	c := exec.Command("ip", "-n", s.prefix+"a", "-batch", "-")
	c.Stdin = strings.NewReader(batch.String())
	out, err := c.CombinedOutput()
	r.table.mu.Unlock()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	got, err := r.addresses(unix.AF_INET)
	want, _, _ := r.dump(unix.AF_INET)
	if err != nil || len(want) < 200 || !slices.Equal(sorted(got), sorted(want)) {
		t.Fatalf("the table has %d addresses (%v), the kernel %d", len(got), err, len(want))
	}
}

// One table serves a network namespace, as long as somebody uses it; each namespace has its own.
func TestTableShared(t *testing.T) {
	s := newSegment(t, "a", "b")
	a1, a2, b := s.open("a"), s.open("a"), s.open("b")
	if a1.table != a2.table || a1.table == b.table {
		t.Error("want one table for each namespace")
	}
	a1.close()
	if list, err := a2.addresses(unix.AF_INET); err != nil || len(list) == 0 {
		t.Errorf("the table has %v (%v) while another uses it", list, err)
	}
	a2.close()
	b.close()
	if len(tables.by) != 0 {
		t.Errorf("%d tables are left that nobody uses", len(tables.by))
	}
}

// One look at what hundreds of addresses need.
func BenchmarkLacks(b *testing.B) {
	s := newSegment(b, "a")
	s.on("a", func() {
		r, err := openRoute()
		if err != nil {
			b.Fatal(err)
		}
		defer r.close()
		i, err := r.byName("eth0")
		if err != nil {
			b.Fatal(err)
		}
		var specs []cluster.ResourceSpec
		for n := range 300 {
			p := netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 77, byte(1 + n/200), byte(1 + n%200)}), 16)
			if err := r.add(i.index, p); err != nil {
				b.Fatal(err)
			}
			specs = append(specs, cluster.ResourceSpec{Fields: map[string]any{"address": p}})
		}
		for b.Loop() {
			for _, spec := range specs {
				if err := (VIP{}).Lacks(spec); err != nil {
					b.Fatal(err)
				}
			}
		}
	})
}

// open opens a route in a host's network namespace.
func (s *segment) open(host string) (r *route) {
	s.t.Helper()
	var err error
	s.on(host, func() { r, err = openRoute() })
	if err != nil {
		s.t.Fatal(err)
	}
	return r
}

func sorted(list []present) []present {
	return slices.SortedFunc(slices.Values(list), func(a, b present) int {
		return cmp.Or(cmp.Compare(a.index, b.index), a.addr.Compare(b.addr), cmp.Compare(a.bits, b.bits))
	})
}

// A list that the kernel was interrupted in making may lack what is there: it counts for nothing, and one that is never
// whole is an error, not the news that an address is gone, or stopped.
func TestInterruptedListIsMadeAnew(t *testing.T) {
	s := newSegment(t, "a")
	a := s.vip("a", netip.MustParsePrefix("10.77.0.50/24"), "", "")
	a.mustStart(1)
	dumps, interrupted := 0, 2
	table := a.route.table
	part := func(family int) ([]present, bool, error) {
		if dumps++; dumps <= interrupted {
			return nil, false, nil
		}
		return a.route.dump(family)
	}
	table.forget(unix.AF_INET)
	list, err := table.addresses(unix.AF_INET, part)
	if err != nil || !slices.ContainsFunc(list, func(p present) bool { return p.addr == a.prefix.Addr() }) || dumps != 3 {
		t.Errorf("after %d requests the table has %v (%v)", dumps, list, err)
	}
	table.forget(unix.AF_INET)
	dumps, interrupted = 0, 1000
	if list, err := table.addresses(unix.AF_INET, part); err == nil {
		t.Errorf("after %d requests, none of them answered whole, the table has %v", dumps, list)
	}
}
