package addr

import (
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"baton/internal/core/cluster"
)

// Another host answers for the address again and again, for a minute: that is told once, and that it is over once, when
// nothing was heard of it for a while. If it comes back it is told anew.
func TestDuplicateComesAndGoes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var told []string
		h := &hold{vip: &vip{prefix: netip.MustParsePrefix("10.0.0.50/24"), log: slog.New(slog.DiscardHandler),
			changed: func(s cluster.Status, reason string, _ bool) { told = append(told, reason) }}}
		d := duplicate{hold: h, tick: time.NewTimer(0)}
		defer d.tick.Stop()
		claim := func() {
			d.mac, d.at, d.pending = net.HardwareAddr{2, 0, 0, 0, 0, 7}, time.Now(), true
			if time.Until(d.answered.Add(defendEvery)) <= 0 {
				d.answer()
			}
		}
		pass := func(d2 time.Duration) {
			for end := time.After(d2); ; {
				select {
				case <-d.tick.C:
					d.check()
				case <-end:
					return
				}
			}
		}
		const seen = "another host (MAC 02:00:00:00:00:07) answers for 10.0.0.50"
		want := []string{}
		for range 2 {
			for range 12 {
				claim()
				pass(5 * time.Second)
			}
			if want = append(want, seen); !slices.Equal(told, want) {
				t.Fatalf("told %q, not %q", told, want)
			}
			pass(duplicateOver - 6*time.Second)
			if !slices.Equal(told, want) {
				t.Fatalf("it was heard less than %v ago, and told is %q", duplicateOver, told)
			}
			pass(3 * time.Second)
			if want = append(want, ""); !slices.Equal(told, want) {
				t.Fatalf("it was not heard for more than %v, and told is %q", duplicateOver, told)
			}
			pass(time.Hour)
		}
	})
}
