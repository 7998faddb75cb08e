package state

import (
	"bytes"
	"fmt"
	"testing"

	"baton/internal/core/cluster"
	"baton/internal/core/wire"
)

// Whatever is applied, a snapshot can be sent: texts of the largest size, adopted one after another, with a draft of the
// same size under way. The oldest revisions go first, and the one that counts stays.
func TestSnapshotIsBounded(t *testing.T) {
	s := begin(t)
	s.read = func([]byte) (*cluster.Spec, error) { return s.spec, nil }
	text := func(i int) []byte {
		return append(fmt.Appendf(nil, "# %d\n", i), bytes.Repeat([]byte("x"), textMax-10)...)
	}
	index := s.Applied
	apply := func(p cluster.Part) {
		t.Helper()
		index++
		if j := s.Apply(index, &cluster.Entry{Parts: []cluster.Part{p}}); len(j.Dropped) > 0 {
			t.Fatal(j.Dropped)
		}
	}
	for i := range 40 {
		id := fmt.Sprint("apply ", i)
		apply(cluster.Part{Draft: &cluster.Draft{Base: s.Revision(), Text: text(i), ID: id}})
		if i < 39 {
			apply(cluster.Part{Adopt: &cluster.Adopt{Base: s.Revision(), Draft: id}})
		}
	}
	if n := len(s.Revisions); n != 4 || s.Revision() != 40 || !bytes.Equal(s.Revisions[n-1].Text, text(38)) {
		t.Errorf("%d revisions are kept, the last is %d", n, s.Revision())
	}
	if n := len(s.Encode()); n > wire.MaxMessage-1<<16 {
		t.Errorf("a snapshot has %d bytes, a message at most %d", n, wire.MaxMessage)
	}
}

// Small texts are kept by their number.
func TestRevisionsKept(t *testing.T) {
	s := &State{}
	for i := range 40 {
		s.Revisions = append(s.Revisions, cluster.RevisionText{Revision: cluster.Revision(i + 1), Text: make([]byte, 60_000)})
		s.forgetRevisions()
	}
	if len(s.Revisions) != revisionsMax || s.Revision() != 40 {
		t.Errorf("%d revisions are kept, the last is %d", len(s.Revisions), s.Revision())
	}
}

// Of many groups that came and went, the epochs of the last are known apart, and no name begins below what it once had.
func TestEpochsOfRemovedGroups(t *testing.T) {
	s := &State{}
	for i := range 3 * epochsMax {
		s.keepEpoch(cluster.GroupID(fmt.Sprint("g", i)), cluster.Epoch(1+i%7))
	}
	if len(s.Epochs) != epochsMax {
		t.Errorf("%d epochs are kept, want %d", len(s.Epochs), epochsMax)
	}
	last := 3*epochsMax - 1
	if e := s.formerEpoch(cluster.GroupID(fmt.Sprint("g", last))); e != cluster.Epoch(1+last%7) {
		t.Errorf("the last one goes on from epoch %d", e)
	}
	if e := s.formerEpoch("g6"); e < 7 {
		t.Errorf("one that is not known any more begins at %d, and had 7", e)
	}
}
