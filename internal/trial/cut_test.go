package trial

import (
	"strings"
	"testing"
	"time"

	"baton/internal/lab"
)

// The owner's cable to the clients is pulled. It says so over the other network, and the group moves at
// once: nobody waits for the takeover time.
func TestCarrierLost(t *testing.T) {
	c := start(t, Options{Takeover: "3s"})
	fault := c.at(func() error { return c.Lab.CutCarrier(Alpha, LAN) })
	if gap := c.movesTo(Beta, fault); gap > handover {
		t.Errorf("an outage of %v, though the owner saw its uplink go", gap)
	}
	c.tellsOf("G32", Gamma, "history") // the lost uplink was what decided
	c.refused("has lost its uplink", Beta, "switch", Group, "--to", Alpha)
	c.undisturbed("the cable is plugged in again", time.Second, func() error { return c.Lab.Heal(Alpha, "") })
	c.must(c.AwaitServing(Beta, limit))
}

// The owner is cut off from everybody on all networks, and sees nothing of it: carrier stays. Its gate has
// closed before the other serves. When the networks are back, every neighbour finds the right node at once.
func TestSilentCutOfOwner(t *testing.T) {
	for _, takeover := range []string{"1s", "250ms"} {
		t.Run(takeover, func(t *testing.T) {
			c := start(t, Options{Takeover: takeover})
			inside := c.ask(Alpha, VIP) // a client on the owner itself
			witness := c.ask(Gamma, VIP)
			fault := c.at(func() error { return c.Lab.CutSilent(Alpha, "") })
			c.await(inside, "alpha's own client is not answered any more", func(r lab.Record) bool {
				return r.Ended-last(r, Alpha) > 200*time.Millisecond
			})
			if err := c.probe.Await(limit, func(r lab.Record) bool { return r.AnsweredSince(fault, Beta) }); err != nil {
				t.Fatal(err)
			}
			served := first(c.probe.Record(), Beta)
			if closed := last(inside.Record(), Alpha); closed >= served {
				t.Errorf("alpha served its own client until %v, %v after beta had begun", closed, closed-served)
			} else {
				t.Logf("alpha's gate closed %v before beta served", served-closed)
			}
			if served-fault > c.takeover()+slack {
				t.Errorf("an outage of %v", served-fault)
			}

			before := c.group(Beta)
			healed := c.at(func() error { return c.Lab.Heal(Alpha, "") })
			c.must(c.AwaitServing(Beta, limit))
			for _, p := range []*lab.Probe{c.probe, witness, inside} {
				c.await(p, "answered by beta after the cut", func(r lab.Record) bool { return r.AnsweredSince(healed, Beta) })
			}
			c.noGap("the cut's end disturbed the client", healed)
			c.noGapOf(witness, "the cut's end disturbed the witness, as a client", healed)
			if at := firstSince(inside.Record(), Beta, healed); at-healed > slack {
				t.Errorf("a client on alpha found beta only %v after the cut", at-healed)
			}
			c.sameEpoch("the cut has ended", before)
			if c.holdsVIP(Alpha) {
				t.Error("alpha still has the address")
			}
		})
	}
}

// Only one direction of the owner's cables works. Either way its service is of no use, and moves.
func TestOneWayCut(t *testing.T) {
	c := start(t, Options{})
	fault := c.at(func() error { return c.Lab.CutOneWay(Alpha, "", lab.Out) })
	c.failsOver(Beta, fault)
	c.eventually("alpha tells who does not hear it", func() bool {
		return strings.Contains(c.run(Alpha, "status"), "alpha is not heard: beta and gamma, heard here, say that they do not hear it.") &&
			strings.Contains(c.run(Alpha, "status"), " coordinates, without alpha; what served here ends with its lease.")
	})
	c.undisturbed("alpha is heard again", time.Second, func() error { return c.Lab.Heal(Alpha, "") })
	c.must(c.AwaitServing(Beta, limit))

	fault = c.at(func() error { return c.Lab.CutOneWay(Beta, "", lab.In) })
	c.failsOver(Alpha, fault)
	c.undisturbed("beta hears again", time.Second, func() error { return c.Lab.Heal(Beta, "") })
	c.must(c.AwaitServing(Alpha, limit))
}

// One of two networks fails between nodes, in turn, in every way: nothing moves.
func TestOneOfTwoLinks(t *testing.T) {
	c := start(t, Options{})
	heal := func() { c.must(c.Lab.HealAll()); c.must(c.AwaitServing(Alpha, limit)) }
	watch := 1500 * time.Millisecond
	c.undisturbed("the owner's second network is cut silently", watch, func() error { return c.Lab.CutSilent(Alpha, Cross) })
	heal()
	c.undisturbed("the cable of the owner's second network is pulled", watch, func() error { return c.Lab.CutCarrier(Alpha, Cross) })
	heal()
	c.undisturbed("the members are cut from each other on the first network", watch, func() error { return c.Lab.CutBetween(Alpha, Beta, LAN) })
	heal()
	c.undisturbed("the members are cut from each other, and the witness hears both", watch, func() error { return c.Lab.CutBetween(Alpha, Beta, "") })
	heal()
	c.undisturbed("the owner and the witness are cut from each other", watch, func() error { return c.Lab.CutBetween(Alpha, Gamma, "") })
}

// The node that coordinates dies, or is cut off. It serves nothing, so nobody notices.
func TestCoordinatorLost(t *testing.T) {
	for _, takeover := range []string{"1s", "250ms"} {
		t.Run(takeover, func(t *testing.T) {
			c := start(t, Options{Takeover: takeover})
			watch := c.takeover() + 300*time.Millisecond
			c.coordinator(Beta)
			c.undisturbed("the coordinator loses power", watch, c.Host(Beta).PowerOff)
			c.undisturbed("it comes back", watch, c.Host(Beta).Boot)
			c.must(c.AwaitServing(Alpha, limit))
			c.coordinator(Beta)
			c.undisturbed("the coordinator is cut off", watch, func() error { return c.Lab.CutSilent(Beta, "") })
			c.undisturbed("it is back", watch, func() error { return c.Lab.Heal(Beta, "") })
			c.must(c.AwaitServing(Alpha, limit))
			c.undisturbed("the witness loses power", watch, c.Host(Gamma).PowerOff)
			c.undisturbed("it comes back", watch, c.Host(Gamma).Boot)
		})
	}
}

// A third of all heartbeats is lost, on both networks. Nothing moves.
func TestLoss(t *testing.T) {
	for _, takeover := range []string{"1s", "250ms"} {
		t.Run(takeover, func(t *testing.T) {
			c := start(t, Options{Takeover: takeover})
			c.undisturbed("30 % of the heartbeats are lost", c.lossTime(), func() error { return c.Lab.LossUDP(7400, 30) })
		})
	}
}
