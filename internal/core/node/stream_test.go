package node

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"go.etcd.io/raft/v3/raftpb"

	"baton/internal/core/cluster"
	"baton/internal/core/wire"
)

func largeText(n int) string { return string(bytes.Repeat([]byte("0123456789abcde\n"), n/16)) }

// fits checks that no node has sent what no datagram holds.
func fits(t *testing.T, r *rig) {
	t.Helper()
	for _, p := range r.sent {
		if b, err := wire.Append(nil, p.in.(*Packet).Msg); err != nil || len(b) > wire.MaxDatagram {
			t.Fatalf("%s sends %T of %d bytes to %s: %v", p.from, p.in.(*Packet).Msg, len(b), p.to, err)
		}
	}
}

// What no datagram holds arrives, whatever share of the packets is lost, doubled or late.
func TestLargeEntryArrives(t *testing.T) {
	for _, lost := range []int{0, 5, 30, 60} {
		t.Run(fmt.Sprintf("%d%%", lost), func(t *testing.T) {
			r := settled(t, file("one", nil))
			dice := rand.New(rand.NewPCG(1, uint64(lost)))
			r.pass = func(_, _ cluster.NodeID, m wire.Message) wire.Message {
				switch m.(type) {
				case *wire.Piece, *wire.Got:
					if dice.IntN(100) < lost {
						return nil
					}
				}
				return m
			}
			r.forget()
			r.at("alpha").ask(deed(largeText(50_000))) // it goes to beta, which coordinates, and from there to both
			at := r.now
			for _, id := range []cluster.NodeID{"alpha", "beta", "gamma"} {
				r.until(string(id)+" applies it", 5*time.Second, func() bool {
					j := r.at(id).n.state.Journal
					return len(j) > 0 && len(j[len(j)-1].Did) > 0 && len(j[len(j)-1].Did[0]) > 40_000
				})
			}
			fits(t, r)
			check(t, lost > 0 || r.now.Sub(at) < 40*time.Millisecond, "it takes %v though nothing is lost", r.now.Sub(at))
			n := len(sent[*wire.Piece](r, "alpha"))
			check(t, lost > 0 || n <= 60, "alpha sends %d pieces of 50 kB", n)
		})
	}
}

// Entries that follow a large one do not overtake it: the receiver would refuse them, and the large one be sent anew.
func TestAppendsDoNotOvertakePieces(t *testing.T) {
	r := settled(t, file("one", nil))
	r.forget()
	r.at("beta").ask(deed(largeText(50_000)))
	r.run(time.Millisecond)
	for i := range 5 {
		r.at("beta").ask(deed(fmt.Sprint("small ", i)))
		r.run(time.Millisecond)
	}
	last := r.at("beta").n.raft.last
	r.until("gamma has all", time.Second, func() bool { return r.at("gamma").n.raft.applied >= last })
	for _, m := range raftSent(r, "gamma", raftpb.MsgAppResp) {
		check(t, !m.GetReject(), "gamma refuses an append at %d", m.GetIndex())
	}
	check(t, len(sent[*wire.Piece](r, "beta")) <= 2*60, "beta sends %d pieces to two nodes", len(sent[*wire.Piece](r, "beta")))
}

// To a peer that is down, pieces go ever more slowly, and then no more.
func TestPiecesToADeadPeer(t *testing.T) {
	r := settled(t, file("one", nil))
	r.at("gamma").stop()
	r.forget()
	r.at("beta").ask(deed(largeText(50_000)))
	r.run(10 * time.Second)
	toGamma := 0
	for _, p := range r.sent {
		if _, ok := p.in.(*Packet).Msg.(*wire.Piece); ok && p.to == "gamma" {
			toGamma++
		}
	}
	check(t, toGamma > windowLeast && toGamma < 1000, "%d pieces within 10 s", toGamma)
	check(t, r.at("beta").n.peers[2].out.data == nil, "beta has not given up")
	r.at("gamma").start()
	last := r.at("beta").n.raft.last
	r.until("gamma has it", 2*time.Second, func() bool { return r.at("gamma").n.raft.applied >= last })
}

// pieces cuts a message.
func pieces(t *testing.T, set uint64, m wire.Message) []*wire.Piece {
	t.Helper()
	b, err := wire.Append(nil, m)
	if err != nil {
		t.Fatal(err)
	}
	var all []*wire.Piece
	for k := range wire.Pieces(uint64(len(b))) {
		all = append(all, wire.PieceOf(set, b, k))
	}
	return all
}

// A message is made of the pieces of one set, in whatever order they come, and of no others; what is beyond the window
// or of a former set is not kept.
func TestNoMessageOfTwo(t *testing.T) {
	r := newRig(t, file("one", nil))
	r.at("gamma").start()
	gamma := r.at("gamma")
	took := func(text string) bool { return string(gamma.n.peers[0].asked.Text) == text }
	ask := func(text string) *wire.Ask { return &wire.Ask{Incarnation: 11, Empty: true, Text: []byte(text)} }
	a, b, c := largeText(10_000), largeText(10_016), largeText(20_000)
	first, second, third := pieces(t, 1, ask(a)), pieces(t, 2, ask(b)), pieces(t, 3, ask(c))
	got := func(m *wire.Piece) *wire.Got {
		out := r.hand("alpha", "gamma", m)
		for i := len(out.Sends) - 1; i >= 0; i-- {
			if g, ok := out.Sends[i].Msg.(*wire.Got); ok {
				return g
			}
		}
		return nil
	}
	for i := len(first) - 1; i > 0; i-- { // all but the first piece, backwards
		got(first[i])
	}
	check(t, !took(a), "taken without its first piece")
	for i := range second {
		if i != 3 {
			got(second[i])
		}
	}
	g := got(second[0])
	check(t, g == nil, "a piece that is here is answered twice within a millisecond")
	got(first[0])
	got(first[3])
	other := *third[3]
	other.Set = 2 // its place and length fit, its set's size does not
	got(&other)
	check(t, !took(a) && !took(b), "put together from two sets")
	g = got(second[3])
	check(t, took(b) && g != nil && g.Upto == uint64(len(second)) && g.More == 0 && g.Set == 2, "the second set is whole, and is answered by %+v", g)
	r.now += 2 * ms
	g = got(second[3])
	check(t, g != nil && g.Upto == uint64(len(second)), "a set that is whole is answered by %+v when a piece comes again", g)
	check(t, got(first[0]) == nil && gamma.n.peers[0].in.set == 2, "a former set is begun anew")
	check(t, cap(gamma.n.peers[0].in.data) == 0, "%d bytes are kept of a message that was taken", cap(gamma.n.peers[0].in.data))
	far := wire.PieceOf(4, make([]byte, 1<<20), windowMost+1)
	check(t, got(far) == nil && len(gamma.n.peers[0].in.data) == 0, "a piece beyond the window is kept")
}

// Whatever order pieces come in, what is noted of them is what has come.
func TestNoteOfPieces(t *testing.T) {
	dice := rand.New(rand.NewPCG(1, 2))
	for range 300 {
		f, have := inflow{}, map[uint64]bool{}
		for f.base < 300 {
			k := f.base + dice.Uint64N(windowMost+1)
			if have[k] {
				continue
			}
			have[k] = true
			f.note(k)
			for i := uint64(0); i < f.base; i++ {
				if !have[i] {
					t.Fatalf("piece %d counts as there", i)
				}
			}
			if have[f.base] {
				t.Fatalf("piece %d is there, and not counted", f.base)
			}
			for i := range uint64(64) {
				if have[f.base+1+i] != (f.more>>i&1 != 0) {
					t.Fatalf("piece %d: %v, and noted as %x from %d on", f.base+1+i, have[f.base+1+i], f.more, f.base)
				}
			}
		}
	}
}

// A snapshot larger than any datagram is copied by a node that missed more than the log keeps.
func TestLargeSnapshot(t *testing.T) {
	r := newRig(t, file("one", nil))
	r.often = 4
	r.start()
	r.until("alpha serves", 3*time.Second, func() bool { return r.at("alpha").open("web") && r.at("beta").n.number != 0 })
	r.until("beta coordinates", 5*time.Second, func() bool { return r.leader() == "beta" })
	r.at("gamma").cut = true
	for i := range 20 {
		r.at("beta").ask(deed(fmt.Sprint(i, largeText(60_000))))
		r.run(50 * time.Millisecond)
	}
	r.forget()
	r.at("gamma").cut = false
	shown := false
	r.until("gamma has copied the state", 5*time.Second, func() bool {
		done, size := r.at("beta").n.peers[2].out.copying()
		shown = shown || done > 0 && size > 1<<20
		return r.at("gamma").n.raft.snapped > 0 && r.at("gamma").n.raft.applied >= r.at("beta").n.raft.applied
	})
	check(t, shown, "nobody could see how far the copy was")
	fits(t, r)
}

// A log of large entries is dropped by its size, before it has many of them.
func TestLogIsDroppedBySize(t *testing.T) {
	r := settled(t, file("one", nil))
	for i := range 14 {
		r.at("beta").ask(deed(fmt.Sprint(i, largeText(1<<20))))
		r.run(time.Second)
	}
	rep := r.at("gamma").n.raft
	first, _ := rep.store.FirstIndex()
	check(t, rep.snapped > 0 && rep.applied-first < 8, "the log begins at %d of %d, the snapshot at %d", first, rep.applied, rep.snapped)
	fits(t, r)
}
