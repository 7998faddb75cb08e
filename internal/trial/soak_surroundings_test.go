package trial

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"baton/internal/lab"
)

// mailVIP is the second group's address.
var mailVIP = netip.MustParseAddrPort("10.77.0.60:8081")

// TestSoakSurroundings lets what is around the programs fail and heal at random, with crashes, killed agents and
// power losses in between: never do two nodes serve at once, and after each heal every group is served and each
// member may take over again. SOAK_SURROUNDINGS=1..100 chooses the seeds, of 40 rounds each (make weather).
func TestSoakSurroundings(t *testing.T) {
	first, last, rounds := uint64(1), uint64(1), 5
	if seeds := os.Getenv("SOAK_SURROUNDINGS"); seeds != "" {
		var err error
		if first, last, err = seedRange(seeds); err != nil {
			t.Fatalf("SOAK_SURROUNDINGS=%s: %v", seeds, err)
		}
		rounds = 40
	}
	for seed := first; seed <= last; seed++ {
		t.Run(strconv.FormatUint(seed, 10), func(t *testing.T) { weather(t, seed, rounds) })
	}
}

// seedRange reads FIRST or FIRST..LAST.
func seedRange(text string) (first, last uint64, err error) {
	a, b, several := strings.Cut(text, "..")
	if first, err = strconv.ParseUint(a, 10, 64); err != nil || !several {
		return first, first, err
	}
	last, err = strconv.ParseUint(b, 10, 64)
	return first, last, err
}

// healedWithin bounds, beside the takeover, how long after a heal a group may stay unserved: the program's start and
// what a busy machine adds.
const healedWithin = 8 * time.Second

// mail is a second group, at home on the other member.
const mail = `  mail:
    nodes: [beta, alpha]
    standby: cold
    resources:
      - process:
          name: service
          command: %s -port 8081
          environment: { BATON_LAB_MODE: echo }
          user: root
          ready: { tcp: "localhost:8081", interval: 20ms }
      - vip: 10.77.0.60/24
`

// storm is one such run under way.
type storm struct {
	*incident
	r        *rand.Rand
	second   *lab.Probe
	kinds    map[string]int
	worst    time.Duration // the longest that a group needed after a heal
	worstOne string
}

func weather(t *testing.T, seed uint64, rounds int) {
	r := rand.New(rand.NewPCG(seed, 16))
	began := time.Now()
	binary, err := Binary()
	if err != nil {
		t.Fatal(err)
	}
	takeover := []string{"250ms", "500ms", "1s"}[r.IntN(3)]
	w := &storm{r: r, kinds: map[string]int{}, incident: start(t, Options{
		Takeover: takeover, Cold: r.IntN(2) == 0, OwnDisk: true, Extra: fmt.Sprintf(mail, binary)})}
	w.second = w.ask(Client, mailVIP)
	defer func() {
		verdict := "ok"
		if t.Failed() {
			verdict = "FAILED"
		}
		fmt.Printf("seed %d: takeover %s, %d faults: %v; served after a heal within %v (%s); overlap %v and %v: %s (%v)\n", seed, takeover, sum(w.kinds), w.kinds,
			w.worst.Round(time.Millisecond), w.worstOne, w.probe.Record().Overlap(), w.second.Record().Overlap(), verdict, time.Since(began).Round(time.Second))
	}()
	for k := range rounds {
		w.round(k)
	}
}

func sum(kinds map[string]int) (n int) {
	for _, k := range kinds {
		n += k
	}
	return n
}

// round breaks one or two things, lets them be for a while, mends them and judges.
func (w *storm) round(k int) {
	var heals []func()
	var told []string
	for range 1 + w.r.IntN(2) {
		f := w.draw()
		if slices.Contains(told, f.what) {
			continue
		}
		told = append(told, f.what)
		w.kinds[f.kind]++
		w.t.Logf("round %d: %s", k, f.what)
		heals = append(heals, f.begin())
		time.Sleep(time.Duration(w.r.IntN(1500)) * time.Millisecond)
	}
	time.Sleep(time.Duration(w.r.IntN(4000)) * time.Millisecond)
	slices.Reverse(heals)
	for _, heal := range heals {
		heal()
	}
	w.judge(fmt.Sprintf("round %d, %s", k, strings.Join(told, " and ")))
}

// judge waits until both groups are served and each has a node that would take over.
func (w *storm) judge(what string) {
	w.t.Helper()
	healed := lab.Now()
	served := func(r lab.Record) bool { return r.AnsweredSince(healed, "") }
	for name, p := range map[string]*lab.Probe{Group: w.probe, "mail": w.second} {
		if err := p.Await(w.takeover()+healedWithin, served); err != nil {
			w.tell()
			w.t.Fatalf("%s: %s is not served %v after the heal", what, name, w.takeover()+healedWithin)
		}
	}
	if took := lab.Now() - healed; took > w.worst {
		w.worst, w.worstOne = took, what
	}
	var missing string
	for deadline := time.Now().Add(limit); ; time.Sleep(pollEvery) {
		if missing = w.missing(); missing == "" {
			return
		}
		if time.Now().After(deadline) {
			w.tell()
			w.t.Fatalf("%s: %v after the heal %s", what, limit, missing)
		}
	}
}

// missing says what is not as it should be where nothing is broken.
func (w *storm) missing() string {
	for _, n := range Nodes {
		s, err := w.Status(n)
		if err != nil {
			return err.Error()
		}
		if len(s.Groups) != 2 {
			return fmt.Sprintf("%s knows of %d groups", n, len(s.Groups))
		}
		for _, g := range s.Groups {
			if !g.Serving || g.Next == "" || g.Next == g.Owner {
				return fmt.Sprintf("%s says %s serves: %v, on %q, next %q", n, g.Name, g.Serving, g.Owner, g.Next)
			}
		}
	}
	return ""
}

// tell logs how all is.
func (w *storm) tell() {
	for _, n := range Nodes {
		out, err := w.command(n, "status")
		w.t.Logf("%s: %v\n%s", n, err, out)
	}
}

// trouble is one fault: begin breaks it and returns what heals it.
type trouble struct {
	kind, what string
	begin      func() func()
}

// draw chooses a fault.
func (w *storm) draw() trouble {
	node := Nodes[w.r.IntN(3)]
	member := Nodes[w.r.IntN(2)]
	network := []string{LAN, Cross}[w.r.IntN(2)]
	shell := func(kind, node, begin, heal string) trouble {
		return trouble{kind, kind + " on " + node, func() func() {
			w.do(node, begin)
			return func() { w.do(node, heal) }
		}}
	}
	own := fmt.Sprintf("10.%d.0.%d/24", map[string]int{LAN: 77, Cross: 78}[network], 11+slices.Index(Nodes, node))
	back := "ip addr replace " + own + " dev " + network
	if network == LAN {
		back += fmt.Sprintf("; ip addr replace fd77::%d/64 dev lan nodad", 11+slices.Index(Nodes, node))
	}
	kinds := []func() trouble{
		func() trouble {
			return shell("address taken", member, "ip addr del 10.77.0.50/24 dev lan; ip addr del 10.77.0.60/24 dev lan; true", "")
		},
		func() trouble { return shell("all addresses taken", node, "ip addr flush dev "+network, back) },
		func() trouble {
			return shell("interface down", node, "ip link set "+network+" down", "ip link set "+network+" up; "+back)
		},
		func() trouble {
			return shell("interface renamed", node, "ip link set "+network+" down && ip link set "+network+" name away0",
				"ip link set away0 name "+network+" && ip link set "+network+" up; "+back)
		},
		func() trouble {
			return shell("run directory full", node, "mount -o remount,size=24m /run; dd if=/dev/zero of=/run/fill bs=64k 2>/dev/null; true", "rm -f /run/fill")
		},
		func() trouble { return shell("run directory deleted", node, "rm -rf /run/baton; true", "") },
		func() trouble {
			return shell("disk full", node, "dd if=/dev/zero of=/var/lib/baton/fill bs=64k 2>/dev/null; true", "rm -f /var/lib/baton/fill")
		},
		func() trouble {
			return shell("disk read-only", node, "mount -o remount,ro /var/lib/baton || true", "mount -o remount,rw /var/lib/baton")
		},
		func() trouble { return shell("rules flushed", member, "nft flush ruleset", "") },
		func() trouble { return shell("qdisc taken", member, "tc qdisc del dev lan clsact; true", "") },
		func() trouble { return shell("gate's pins removed", member, "rm -f /run/baton-gate/*_*", "") },
		func() trouble { return shell("gate's pins unmounted", member, "umount -l /run/baton-gate; true", "") },
		func() trouble {
			return shell("large packets dropped", node,
				"nft 'add table inet soak; add chain inet soak large { type filter hook prerouting priority -300; }; add rule inet soak large iifname "+network+" meta length > 1280 drop'",
				"nft delete table inet soak; true")
		},
		func() trouble {
			return shell("TCP dropped", node,
				"nft 'add table inet soaktcp; add chain inet soaktcp c { type filter hook prerouting priority -300; }; add rule inet soaktcp c iifname "+network+" tcp dport 7400 drop; add rule inet soaktcp c iifname "+network+" tcp sport 7400 drop'",
				"nft delete table inet soaktcp; true")
		},
		func() trouble {
			return trouble{"cut silently", "cut silently of " + node + " on " + network, func() func() {
				w.must(w.Lab.CutSilent(node, network))
				return func() { w.must(w.Lab.Heal(node, network)) }
			}}
		},
		func() trouble {
			return trouble{"no carrier", "no carrier of " + node + " on " + network, func() func() {
				w.must(w.Lab.CutCarrier(node, network))
				return func() {
					w.must(w.Lab.Heal(node, network))
					w.do(node, back)
				}
			}}
		},
		func() trouble {
			return trouble{"agent killed", "agent killed on " + node, func() func() {
				_ = w.Agent(node).Process().Kill() // it may have ended by itself
				return func() {}
			}}
		},
		func() trouble {
			return trouble{"program killed", "program killed on " + member, func() func() {
				if pid, err := w.ServicePID(member); err == nil { // else it does not run there
					w.must(syscall.Kill(pid, syscall.SIGKILL))
				}
				return func() {}
			}}
		},
	}
	if w.r.IntN(8) == 0 {
		return w.power(node)
	}
	return kinds[w.r.IntN(len(kinds))]()
}

// do runs a line on a host, if that has power: a machine that boots has none of these faults.
func (w *storm) do(host, line string) {
	w.t.Helper()
	if line != "" && w.Host(host).On() {
		w.shell(host, line)
	}
}

// power is a power loss: what else was broken within that host is gone with it.
func (w *storm) power(node string) trouble {
	return trouble{"power loss", "power loss of " + node, func() func() {
		w.must(w.Host(node).PowerOff())
		return func() {
			w.must(w.Host(node).Boot())
			w.do(node, "rm -f /var/lib/baton/fill")
		}
	}}
}
