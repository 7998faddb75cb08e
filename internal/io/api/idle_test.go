package api

import (
	"context"
	"net"
	"net/http"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	batonv1 "baton/api/v1"
)

// closing is a connection of which it is known whether it was closed.
type closing struct {
	net.Conn
	closed, told bool
}

func (c *closing) Close() error { c.closed = true; return nil }

// Of callers that fill a Health listener the one that has been idle longest goes. Those that have come and gone before
// count no more: whoever is idle while there is room stays.
func TestIdleLongest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := callers{idle: map[net.Conn]time.Time{}}
		for range 3 * maxHealthConns { // asked once, and gone
			gone := &closing{}
			for _, state := range []http.ConnState{http.StateNew, http.StateActive, http.StateIdle, http.StateActive, http.StateClosed} {
				c.changed(gone, state)
			}
		}
		all := make([]*closing, maxHealthConns+10)
		for i := range all {
			all[i] = &closing{}
			c.changed(all[i], http.StateNew)
			c.changed(all[i], http.StateActive)
			c.changed(all[i], http.StateIdle)
			time.Sleep(time.Second)
			if i == 20 { // the first asks once more: it is the last to go
				c.changed(all[0], http.StateActive)
				c.changed(all[0], http.StateIdle)
			}
			for k := range i {
				if all[k].closed && !all[k].told {
					all[k].told = true
					c.changed(all[k], http.StateClosed)
				}
			}
		}
		for i, one := range all { // of 64 places the last is kept for who comes
			if want := i > 0 && i <= 11; one.closed != want {
				t.Errorf("connection %d is closed: %v", i, one.closed)
			}
		}
	})
}

// Who asks for something that takes long is looked at again all the time, not only once: a token that is revoked late
// ends it too. What has ended is looked at no more.
func TestLongRequestsAreLookedAtAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, until := range []int32{1, 2, 7} {
			var looks atomic.Int32
			ctx, cancel := context.WithCancel(t.Context())
			began := time.Now()
			stop := watch(func() (peer, *refusal) {
				if looks.Add(1) >= until {
					return peer{}, &refusal{text: "it was revoked"}
				}
				return peer{}, nil
			}, cancel)
			<-ctx.Done()
			if took := time.Since(began); took != time.Duration(until)*recheck {
				t.Errorf("revoked before look %d: it ends after %v", until, took)
			}
			stop()
			synctest.Wait()
			before := looks.Load()
			time.Sleep(10 * recheck)
			if looks.Load() != before {
				t.Error("it is looked at after its end")
			}
		}
	})
}

// A node that asks another gets no hearsay, and so the other asks nobody: two that each have something to tell would ask
// each other in turn.
func TestNodesTellNoHearsay(t *testing.T) {
	asked := 0
	alpha := newTeller("alpha")
	alpha.peers["beta"] = func() *Client { asked++; return Dial("/nowhere") }
	for who, want := range map[role]int{node: 0, view: 1, admin: 1} {
		asked = 0
		h := &handlers{backend: alpha}
		s := &batonv1.StatusResponse{Node: "alpha", Nodes: []*batonv1.Node{{Name: "alpha", Faulty: true}, {Name: "beta", Faulty: true}}}
		h.askFaulty(withPeer(t.Context(), peer{role: who}), s)
		if asked != want || !s.Nodes[1].Faulty {
			t.Errorf("asked by %v: beta was asked %d times; it has something to tell: %v", who, asked, s.Nodes[1].Faulty)
		}
	}
}
