package group

import (
	"testing"
	"time"

	"baton/internal/core/cluster"
)

const asked = "GET http://localhost/: 503"

func (b *bench) probe(status cluster.Status, says string) {
	reason := ""
	if status == cluster.StatusFailed {
		reason = says + ", 3 times in a row"
	}
	b.g.Done(cluster.Done{Resource: "app", Status: status, Reason: reason, Probe: says}, b.now)
}

// What comes up and dies again at once is tried again later each time; once it has been well for a while, at once.
func TestTheWaitIsNotForgottenAtOnce(t *testing.T) {
	b, s := serving(t)
	b.g.spec.Restarts = 0
	die := func() {
		b.g.Done(cluster.Done{Resource: "app", Status: cluster.StatusFailed, Reason: "it died"}, b.now)
	}
	for _, wait := range []cluster.Instant{1, 2, 4, 8, 16, 30, 30} {
		die()
		if o := b.expect(t, s, ""); o.WakeAt != b.now+wait*second {
			t.Errorf("waits for %v, want %d s", o.WakeAt-b.now, wait)
		}
		b.now += wait * second
		b.expect(t, s, "app running@3 anew")
		b.done(t, "app", cluster.StatusRunning)
		b.expect(t, s, "")
		b.now += 3 * second
	}
	b.now = b.now.Add(wellLeast)
	die()
	if o := b.expect(t, s, ""); o.WakeAt != b.now+second {
		t.Errorf("it had been well for a while, and waits for %v", o.WakeAt-b.now)
	}
}

// What is up and ill is killed less and less often.
func TestWhatIsUpIsKilledLater(t *testing.T) {
	b, s := serving(t)
	b.g.spec.Restarts = 0
	for _, wait := range []cluster.Instant{1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300} {
		b.probe(cluster.StatusFailed, asked)
		if o := b.expect(t, s, ""); o.WakeAt != b.now+wait*second || !o.Probe.Ill || o.Probe.Says == 0 || !o.Probe.Brief {
			t.Errorf("waits for %v, want %d s: %+v", o.WakeAt-b.now, wait, o.Probe)
		}
		b.now += wait * second
		b.expect(t, s, "app running@3 anew")
		b.done(t, "app", cluster.StatusRunning)
		b.expect(t, s, "")
		b.now += 3 * second
	}
}

// While every other node says the same of the same probe, what is up is left alone, and is as it was once it is well.
func TestNothingThatIsUpIsKilledForWhatAllSay(t *testing.T) {
	b, s := serving(t)
	b.now = b.now.Add(time.Hour)
	b.probe(cluster.StatusRunning, asked)
	if o := b.expect(t, s, ""); o.Probe.Ill || o.Probe.Says == 0 || o.Failed != "" {
		t.Errorf("one failed try: %+v", o)
	}
	b.probe(cluster.StatusFailed, asked)
	s.Shared = true
	if o := b.expect(t, s, ""); o.WakeAt != b.now.Add(wellLeast) || o.Failed == "" || !o.Probe.Ill || o.Probe.Brief {
		t.Errorf("all say so: %+v", o)
	}
	b.now = b.now.Add(time.Hour)
	b.expect(t, s, "")
	b.g.Restart("")
	b.expect(t, s, "ip stopped@3") // a person may
	b.done(t, "ip", cluster.StatusStopped)
	b.expect(t, s, "app stopped@3")
	b.done(t, "app", cluster.StatusStopped)
	b.expect(t, s, "db stopped@3")
	b.done(t, "db", cluster.StatusStopped)
	b.expect(t, s, "db running@3")
	b.done(t, "db", cluster.StatusRunning)
	b.expect(t, s, "app running@3")
	b.done(t, "app", cluster.StatusRunning)
	b.expect(t, s, "ip running@3")
	b.done(t, "ip", cluster.StatusRunning)
	b.probe(cluster.StatusFailed, asked)
	b.expect(t, s, "")
	b.probe(cluster.StatusRunning, "")
	if o := b.expect(t, s, ""); o.Failed != "" || o.Probe != (Probe{}) || !o.Ready || !o.Fronts {
		t.Errorf("it is well again: %+v", o)
	}

	// What has died is started all the same, and what waits for its ready is not stopped for that.
	b.g.Done(cluster.Done{Resource: "app", Status: cluster.StatusFailed, Reason: "it died"}, b.now)
	b.expect(t, s, "app running@3 anew")
	b.g.Done(cluster.Done{N: b.open[len(b.open)-1].N, Resource: "app", Status: cluster.StatusFailed, Reason: "not ready", Probe: asked}, b.now)
	o := b.expect(t, s, "")
	b.now = o.WakeAt
	b.expect(t, s, "app running@3")
}

// A standby that becomes the owner takes its role though it is ill, and so does one that was the owner.
func TestRolesChangeThoughAllAreIll(t *testing.T) {
	b := newBench(cluster.Hot)
	s := Situation{Epoch: 1, Shared: true}
	b.expect(t, s, "db standby@1")
	b.done(t, "db", cluster.StatusStandby)
	b.expect(t, s, "app standby@1")
	b.done(t, "app", cluster.StatusStandby)
	b.probe(cluster.StatusFailed, asked)
	b.expect(t, s, "")
	s = Situation{Role: Owner, Epoch: 2, MayStart: true, MayServe: true, Shared: true}
	b.expect(t, s, "db running@2")
	b.done(t, "db", cluster.StatusRunning)
	b.expect(t, s, "app running@2")
}

// What an agent finds up when it starts, it leaves alone for what every node says as well; and while something is tried
// again that had failed by its probe, it still says so: nobody may take this node for a better one meanwhile.
func TestFoundUpIsLeftAloneForWhatAllSay(t *testing.T) {
	b := newBench(cluster.Hot)
	for _, id := range []cluster.ResourceID{"db", "app", "ip"} {
		b.g.Found(cluster.Done{Resource: id, Status: cluster.StatusRunning}, 3)
	}
	s := Situation{Role: Owner, Epoch: 3, MayStart: true, MayServe: true, Shared: true}
	b.expect(t, s, "ip running@3") // once, so that it is watched
	b.done(t, "ip", cluster.StatusRunning)
	b.probe(cluster.StatusFailed, asked)
	b.expect(t, s, "")
	b.now = b.now.Add(time.Hour)
	b.expect(t, s, "")
	s.Shared = false
	b.now = b.now.Add(time.Hour)
	if o := b.expect(t, s, "app running@3 anew"); o.Failed != "" || o.Probe.Ill || o.Probe.Says == 0 {
		t.Errorf("while it is tried again: %+v", o)
	}
}

// How long what was found up had been well is not known: longer than a while, as far as anybody can tell. And what fails
// again while it is tried again has been well no shorter for that.
func TestHowLongItWasWell(t *testing.T) {
	b := newBench(cluster.Cold)
	b.now = cluster.Instant(time.Hour)
	for _, id := range []cluster.ResourceID{"db", "app", "ip"} {
		b.g.Found(cluster.Done{Resource: id, Status: cluster.StatusRunning}, 3)
	}
	s := Situation{Role: Owner, Epoch: 3, MayStart: true, MayServe: true, Shared: true}
	b.expect(t, s, "ip running@3")
	b.done(t, "ip", cluster.StatusRunning)
	b.probe(cluster.StatusFailed, asked)
	if o := b.expect(t, s, ""); !o.Probe.Ill || o.Probe.Brief {
		t.Errorf("found up and well for long: %+v, want ill and not brief", o.Probe)
	}
	s.Shared = false
	b.now = b.now.Add(time.Minute)
	b.expect(t, s, "app running@3 anew")
	b.g.Done(cluster.Done{N: b.open[len(b.open)-1].N, Resource: "app", Status: cluster.StatusFailed, Reason: "not ready", Probe: asked}, b.now)
	s.Shared = true
	if o := b.expect(t, s, ""); !o.Probe.Ill || o.Probe.Brief {
		t.Errorf("its restart failed: %+v, want ill and not brief", o.Probe)
	}
}

// An address costs next to nothing to put back: one that is taken away again and again is left off for a moment first.
func TestAnAddressIsPutBackSoon(t *testing.T) {
	b, s := serving(t)
	b.g.spec.Restarts = 0
	for _, wait := range []time.Duration{50, 100, 200, 400} {
		b.g.Done(cluster.Done{Resource: "ip", Status: cluster.StatusFailed, Reason: "it was taken away"}, b.now)
		if o := b.expect(t, s, ""); o.WakeAt != b.now.Add(wait*time.Millisecond) {
			t.Errorf("waits for %v, want %d ms", o.WakeAt-b.now, wait)
		}
		b.now = b.now.Add(wait * time.Millisecond)
		b.expect(t, s, "ip running@3 anew")
		b.done(t, "ip", cluster.StatusRunning)
		b.expect(t, s, "")
	}
}
