package reach

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/vishvananda/netns"
)

// soon bounds what should happen at once; it is long because the machine may be busy.
const soon = 20 * time.Second

// lan is a bridge with the hosts a and gw on it, 10.77.0.1 and .2, fd77::1 and ::2; behind gw is far, 10.78.0.2.
type lan struct {
	t      *testing.T
	prefix string
}

func newLAN(t *testing.T) *lan {
	if os.Getuid() != 0 {
		t.Skip("needs root to make network namespaces")
	}
	l := &lan{t, fmt.Sprintf("reach%d-%s-", os.Getpid(), t.Name()[4:8])}
	for _, h := range []string{"sw", "a", "gw", "far"} {
		l.run("ip", "netns", "add", l.prefix+h)
		t.Cleanup(func() { exec.Command("ip", "netns", "del", l.prefix+h).Run() })
		l.ip(h, "link set lo up")
	}
	l.ip("sw", "link add br0 type bridge")
	l.ip("sw", "link set br0 up")
	for i, h := range []string{"a", "gw"} {
		l.ip("sw", "link add name %s type veth peer name eth0 netns %s", h, l.prefix+h)
		l.ip("sw", "link set dev %s master br0 up", h)
		l.ip(h, "link set eth0 up")
		l.ip(h, "address add 10.77.0.%d/24 dev eth0", i+1)
		l.ip(h, "address add fd77::%d/64 dev eth0 nodad", i+1)
	}
	l.ip("gw", "link add name eth1 type veth peer name eth0 netns %s", l.prefix+"far")
	l.ip("gw", "address add 10.78.0.1/24 dev eth1")
	l.ip("gw", "link set eth1 up")
	l.ip("far", "address add 10.78.0.2/24 dev eth0")
	l.ip("far", "link set eth0 up")
	l.ip("far", "route add default via 10.78.0.1")
	l.ip("a", "route add 10.78.0.0/24 via 10.77.0.2")
	l.run("ip", "netns", "exec", l.prefix+"gw", "sysctl", "-qw", "net.ipv4.ip_forward=1")
	return l
}

func (l *lan) run(args ...string) {
	l.t.Helper()
	if out, err := exec.Command(args[0], args[1:]...).CombinedOutput(); err != nil {
		l.t.Fatalf("%v: %v\n%s", args, err, out)
	}
}

func (l *lan) ip(host, format string, args ...any) {
	l.t.Helper()
	l.run(append([]string{"ip", "-n", l.prefix + host}, strings.Fields(fmt.Sprintf(format, args...))...)...)
}

// word is what is said of all addresses: those that answer, and those that are missed.
type word struct {
	mu              sync.Mutex
	reached, missed []netip.Addr
	rounds          int
}

func (w *word) is(t *testing.T, what string, so func(reached, missed []netip.Addr) bool) {
	t.Helper()
	for end := time.Now().Add(soon); ; time.Sleep(5 * time.Millisecond) {
		w.mu.Lock()
		reached, missed := w.reached, w.missed
		w.mu.Unlock()
		if so(reached, missed) {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("%s: not within %v; reached %v, missed %v", what, soon, reached, missed)
		}
	}
}

// watch asks from a host until the test is over.
func (l *lan) watch(host string, q Questions) *word {
	w := new(word)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // for good: the thread ends with the goroutine
		h, err := netns.GetFromName(l.prefix + host)
		if err == nil {
			err = netns.Set(h)
		}
		if err != nil {
			l.t.Error(err)
			return
		}
		Watch(ctx, func() Questions { return q }, nil, func(reached, _, missed []netip.Addr) {
			w.mu.Lock()
			w.reached, w.missed = reached, missed
			w.rounds++
			w.mu.Unlock()
		}, slog.New(slog.DiscardHandler))
	}()
	l.t.Cleanup(func() { cancel(); <-done })
	return w
}

func addrs(texts ...string) (out []netip.Addr) {
	for _, s := range texts {
		out = append(out, netip.MustParseAddr(s))
	}
	return out
}

func (l *lan) questions(texts ...string) Questions {
	q := Questions{Round: 100 * time.Millisecond}
	for _, a := range addrs(texts...) {
		q.Targets = append(q.Targets, Target{Addr: a})
	}
	return q
}

// A neighbour, by either family, and a host behind it are reached, missed once the port to them is dead, with its
// carrier up, and reached again. What nobody has is missed.
func TestPort(t *testing.T) {
	l := newLAN(t)
	all := []string{"10.77.0.2", "fd77::2", "10.78.0.2"}
	w := l.watch("a", l.questions(append(all, "10.77.0.99", "fd77::99")...))
	good := func(reached, missed []netip.Addr) bool {
		return slices.Equal(reached, addrs(all...)) && slices.Equal(missed, addrs("10.77.0.99", "fd77::99"))
	}
	w.is(t, "all that exist are reached", good)
	for range 2 {
		l.ip("sw", "link set dev a nomaster")
		w.is(t, "all are missed", func(reached, missed []netip.Addr) bool { return len(reached) == 0 && len(missed) == 5 })
		l.ip("sw", "link set dev a master br0")
		w.is(t, "they are reached again", good)
	}
}

// A neighbour that drops ICMP answers by ARP and neighbour discovery; one behind a gateway answers no more.
func TestNoPing(t *testing.T) {
	l := newLAN(t)
	for _, h := range []string{"gw", "far"} {
		for _, family := range []string{"icmp", "icmpv6"} {
			l.run("ip", "netns", "exec", l.prefix+h, "nft", "add table inet f"+family)
			l.run("ip", "netns", "exec", l.prefix+h, "nft", "add chain inet f"+family+" in { type filter hook input priority 0 ; }")
			l.run("ip", "netns", "exec", l.prefix+h, "nft", "add rule inet f"+family+" in "+family+" type echo-request drop")
		}
	}
	w := l.watch("a", l.questions("10.77.0.2", "fd77::2", "10.78.0.2"))
	w.is(t, "the neighbours are reached, the host behind is not", func(reached, missed []netip.Addr) bool {
		return slices.Equal(reached, addrs("10.77.0.2", "fd77::2")) && slices.Equal(missed, addrs("10.78.0.2"))
	})
}

// A host without an address of its own there asks from none, on the interface that it was given, and takes no answer
// by another way for one.
func TestBare(t *testing.T) {
	l := newLAN(t)
	l.ip("a", "address del 10.77.0.1/24 dev eth0")
	l.ip("a", "address add 10.77.0.50/24 dev eth0") // the group's, which moves
	q := l.questions("10.77.0.2")
	q.Avoid = addrs("10.77.0.50")
	index, err := l.index("a", "eth0")
	if err != nil {
		t.Fatal(err)
	}
	q.Targets[0].Interface = index
	w := l.watch("a", q)
	is := func() {
		t.Helper()
		w.is(t, "it is reached", func(reached, _ []netip.Addr) bool { return slices.Equal(reached, addrs("10.77.0.2")) })
	}
	is()
	l.ip("a", "address del 10.77.0.50/24 dev eth0")
	w.mu.Lock()
	w.reached = nil
	w.mu.Unlock()
	is()
}

func (l *lan) index(host, name string) (index int, err error) {
	out, err := exec.Command("ip", "netns", "exec", l.prefix+host, "cat", "/sys/class/net/"+name+"/ifindex").Output()
	if err == nil {
		_, err = fmt.Sscan(string(out), &index)
	}
	return index, err
}

// Rounds in which the host stood still count for nothing, and what is asked no more is forgotten.
func TestCount(t *testing.T) {
	a := &asker{answered: map[netip.Addr]bool{}, misses: map[netip.Addr]int{}}
	q := Questions{Targets: []Target{{Addr: addrs("10.0.0.1")[0]}}}
	a.take(q)
	a.heard(q.Targets[0].Addr)
	if reached, _, missed := a.count(q, false); len(reached) != 1 || len(missed) != 0 {
		t.Errorf("answered: reached %v, missed %v", reached, missed)
	}
	for round := range 2*Misses - 1 {
		reached, _, missed := a.count(q, round%2 == 1)
		if len(reached) != 0 || (len(missed) == 1) != (round == 2*Misses-2) {
			t.Errorf("round %d: reached %v, missed %v", round, reached, missed)
		}
	}
	a.take(Questions{})
	if len(a.misses) != 0 {
		t.Error("what is asked no more is not forgotten")
	}
}

// While there is nobody to ask nothing is done, until it is told of a change; and so again afterwards.
func TestNobodyToAsk(t *testing.T) {
	var looks, empty, rounds atomic.Int32
	var q atomic.Pointer[Questions]
	none, some := &Questions{Round: roundLeast}, &Questions{Round: roundLeast, Targets: []Target{{Addr: addrs("127.0.0.1")[0]}}}
	changed := make(chan struct{}, 1)
	q.Store(none)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		look := func() Questions {
			looks.Add(1)
			now := q.Load()
			if now == none {
				empty.Add(1)
			}
			return *now
		}
		Watch(ctx, look, changed, func(_, _, _ []netip.Addr) { rounds.Add(1) }, slog.New(slog.DiscardHandler))
	}()
	defer func() { cancel(); <-done }()
	idle := func() {
		t.Helper()
		before := looks.Load()
		time.Sleep(15 * roundLeast)
		if n := looks.Load() - before; n != 0 {
			t.Errorf("with nobody to ask it looked %d times", n)
		}
	}
	await := func(what string, so func() bool) {
		t.Helper()
		for end := time.Now().Add(soon); !so(); time.Sleep(time.Millisecond) {
			if time.Now().After(end) {
				t.Fatal(what)
			}
		}
	}
	turn := func(to *Questions) {
		q.Store(to)
		select {
		case changed <- struct{}{}:
		default:
		}
	}
	await("it never looks", func() bool { return looks.Load() > 0 })
	idle()
	for range 2 {
		before := rounds.Load()
		turn(some)
		await("nobody is asked after the change", func() bool { return rounds.Load() > before+2 })
		found := empty.Load()
		turn(none)
		// It finds so when its round is over, and once more for the word of the change.
		await("it does not find that there is nobody to ask any more", func() bool { return len(changed) == 0 && empty.Load() == found+2 })
		idle()
	}
}
