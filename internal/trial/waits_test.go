package trial

import (
	"context"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"baton/internal/lab"
)

// This file is about what interfaces are called, and about what is waited for.

// onInterface has the group's IPv4 address name its interface.
func onInterface(names string) func(string) string {
	return func(file string) string {
		return strings.ReplaceAll(file, "- vip: 10.77.0.50/24", "- vip: { address: 10.77.0.50/24, interface: "+names+" }")
	}
}

// inHost runs a line of shell on a host while it boots.
func inHost(h *lab.Host, line string) error {
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	_, err := h.Command(ctx, "sh", "-c", line)
	return err
}

// The file names the interface by an alternative name, longer than a name of its own may be: the loss of its carrier is
// noticed though another link lives. A name that is taken away and comes back is there at once.
func TestAlternativeName(t *testing.T) {
	t.Parallel()
	const name = "enx02aabbccddeeff"
	c := start(t, Options{Edit: onInterface(name), Before: func(h *lab.Host) error {
		return inHost(h, "ip link property add dev lan altname "+name)
	}})
	c.failsOver(Beta, c.at(func() error { return c.Lab.CutCarrier(Alpha, LAN) }))
	c.shell(Alpha, "ip link property del dev lan altname "+name)
	c.must(c.Lab.HealAll())
	c.eventually("alpha is known to lack the interface", func() bool {
		return strings.Contains(c.run(Beta, "status"), "there is no interface "+name)
	})
	c.must(c.Host(Beta).PowerOff())
	c.eventually("nobody serves", func() bool { return c.group(Gamma).Owner == "" })
	c.movesTo(Alpha, c.at(func() error { return inHost(c.Host(Alpha), "ip link property add dev lan altname "+name) }))
}

// Each node calls its card differently, and the file says so. Nothing that is judged by the name is judged by another
// node's.
func TestInterfaceByNode(t *testing.T) {
	t.Parallel()
	c := start(t, Options{Edit: onInterface("{ alpha: lan, beta: ens3 }"), Before: func(h *lab.Host) error {
		if h.Name() != Beta {
			return nil
		}
		return inHost(h, "ip link set lan down && ip link set lan name ens3 && ip link set ens3 up && ip address add fd77::12/64 dev ens3 nodad")
	}})
	for _, node := range Nodes[:2] {
		if out, _ := c.command(node, "check", "--node", node, "--measure", "50ms"); strings.Contains(out, "resource vip") {
			t.Errorf("%s's check complains of an address:\n%s", node, out)
		}
	}
	c.failsOver(Beta, c.at(func() error { return c.Lab.CutCarrier(Alpha, LAN) }))
	c.must(c.Lab.HealAll())
	c.must(c.AwaitServing(Beta, limit))
	c.failsOver(Alpha, c.at(func() error { return c.Lab.CutCarrier(Beta, LAN) }))
}

// database is what the probes of the next tests ask for. Each host has its own, and all of them go and come together.
const database = "/run/database"

// asksTheDatabase has the group's program asked for the database.
func asksTheDatabase(file string) string {
	return strings.ReplaceAll(file, "          user: root\n",
		"          user: root\n          healthy: { command: \"test -e "+database+"\", interval: 300ms, failures: 3 }\n")
}

func makeDatabase(h *lab.Host) error { return inHost(h, "touch "+database) }

// goesAway takes the database away everywhere for a while, and tells how often the program was started meanwhile, and
// how many entries the history has more.
func (c *incident) goesAway(d time.Duration) (starts, entries int) {
	c.t.Helper()
	count := func() (starts, entries int) {
		for _, n := range Nodes[:2] {
			text, err := os.ReadFile(c.Host(n).LogPath("agent"))
			c.must(err)
			starts += strings.Count(string(text), "msg=started")
		}
		return starts, strings.Count(c.run(Gamma, "history", "-n", "0"), "\n")
	}
	startsBefore, entriesBefore := count()
	for _, n := range Nodes[:2] {
		c.shell(n, "rm "+database)
	}
	time.Sleep(d)
	if text := c.run(Gamma, "status"); !strings.Contains(text, "every node that could have it says the same of the same probe") {
		c.t.Errorf("status does not tell that all say the same:\n%s", text)
	}
	for _, n := range Nodes[:2] {
		c.shell(n, "touch "+database)
	}
	c.eventually("it serves again", func() bool { return c.group(Gamma).Serving })
	starts, entries = count()
	return starts - startsBefore, entries - entriesBefore
}

// What every node's probe asks for is away. Each node has its program up: none is killed, nothing moves, and it is
// told once.
func TestAllSayTheSameHot(t *testing.T) {
	t.Parallel()
	c := start(t, Options{Edit: asksTheDatabase, Before: makeDatabase})
	alpha, beta := c.serviceRuns(Alpha), c.serviceRuns(Beta)
	began := lab.Now()
	starts, entries := c.goesAway(10 * time.Second)
	if starts != 0 || c.serviceRuns(Alpha) != alpha || c.serviceRuns(Beta) != beta {
		t.Errorf("programs were started %d times", starts)
	}
	if entries > 3 {
		t.Errorf("%d entries of the history", entries)
	}
	if g := c.group(Gamma); g.Owner != Alpha {
		t.Errorf("it moved: %+v", g)
	}
	c.noGap("the program served all along", began)
}

// The standby is cold: it has to be tried whether it is better off there, once.
func TestAllSayTheSameCold(t *testing.T) {
	t.Parallel()
	c := start(t, Options{Cold: true, Edit: asksTheDatabase, Before: makeDatabase})
	starts, entries := c.goesAway(12 * time.Second)
	if starts > 2 {
		t.Errorf("the program was started %d times: more than once anew, and once on the other node", starts)
	}
	if entries > 6 {
		t.Errorf("%d entries of the history", entries)
	}
	if again, more := c.goesAway(6 * time.Second); again != 0 || more > 2 {
		t.Errorf("the second time the program was started %d times, with %d entries of the history", again, more)
	}
}

// One node's probe alone: that node is to blame, and the group moves.
func TestOneSaysSo(t *testing.T) {
	t.Parallel()
	c := start(t, Options{Edit: asksTheDatabase, Before: makeDatabase})
	c.shell(Alpha, "rm "+database)
	c.must(c.Await(Gamma, limit, "it serves on beta", func(s *Status) bool { return s.Group().Owner == Beta && s.Group().Serving }))
}

// What a program waits for comes after the pause between two attempts has grown long, or, for what the host is known
// to lack, after a while. What the kernel tells of ends it at once, whatever it is.
func TestArrivals(t *testing.T) {
	t.Parallel()
	binary, err := Binary()
	if err != nil {
		t.Fatal(err)
	}
	group := func(name, process string) string {
		return fmt.Sprintf("  %s: { nodes: [alpha], resources: [ { process: %s } ] }\n", name, process)
	}
	c := start(t, Options{
		Before: func(h *lab.Host) error {
			if h.Name() != Alpha {
				return nil
			}
			_, err := h.Start(lab.Program{Args: []string{binary, "-port", "9001"}, Env: []string{"BATON_LAB_MODE=echo"}, Output: "squatter"})
			return err
		},
		Extra: group("address", `{ user: root, command: [sh, -c, "ip -o address show | grep -q 10.79.0.1 || { echo bind: Cannot assign requested address; exit 1; }; exec sleep 1000"] }`) +
			group("file", `{ user: root, command: /run/late/bin/server }`) +
			group("interpreter", `{ user: root, command: /run/script }`) +
			group("mount", `{ user: late, command: sleep 1000 }`) +
			group("port", fmt.Sprintf(`{ user: root, command: [%s, -port, "9001"], environment: { BATON_LAB_MODE: echo }, ports: [9001] }`, binary)),
	})
	serves := func(name string) bool {
		s, err := c.Status(Alpha)
		if err != nil {
			return false
		}
		for _, g := range s.Groups {
			if g.Name == name {
				return g.Serving
			}
		}
		return false
	}
	c.shell(Alpha, "printf '#!/run/interpreter\\nexec sleep 1000\\n' > /run/script && chmod +x /run/script")
	time.Sleep(20 * time.Second)
	text := c.run(Alpha, "status")
	for _, want := range []string{"/run/late/bin/server", "/run/interpreter", `user \"late\"`, "port tcp/9001 is held by another program"} {
		if !strings.Contains(text, want) && !strings.Contains(text, strings.ReplaceAll(want, `\"`, `"`)) {
			t.Errorf("status does not tell of %s:\n%s", want, text)
		}
	}
	for _, x := range []struct{ group, come string }{
		{"address", "ip address add 10.79.0.1/24 dev lan"},
		{"file", "mkdir -p /run/late/bin && printf '#!/bin/sh\\nexec sleep 1000\\n' > /run/late/server && chmod +x /run/late/server && mv /run/late/server /run/late/bin"},
		{"interpreter", "ln -s /bin/sh /run/interpreter"},
		{"mount", "cp /etc/passwd /run/passwd && echo late:x:4242:4242::/:/bin/sh >> /run/passwd && mount --bind /run/passwd /etc/passwd"},
		{"port", "kill $(pgrep -f -- '-port 9001' | head -1)"},
	} {
		if serves(x.group) {
			t.Errorf("%s serves without what it needs", x.group)
		}
		c.shell(Alpha, x.come)
		const atOnce = 3 * time.Second // far below the pauses, far above what a noisy machine adds
		came := time.Now()
		for !serves(x.group) && time.Since(came) < limit {
			time.Sleep(pollEvery)
		}
		if took := time.Since(came); took > atOnce {
			t.Errorf("%s: it serves %v after what it had waited for\n%s", x.group, took, c.run(Alpha, "status"))
		} else {
			t.Logf("%s: serves after %v", x.group, took)
		}
	}
}
