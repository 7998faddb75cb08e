package sim

import (
	"slices"
	"time"

	"baton/internal/core/cluster"
)

// cacheWrite is how long a write takes that need not be durable.
const cacheWrite = 30 * time.Microsecond

// disk is a node's data directory. Writes are carried out in order; all that wait when a sync begins
// share it. What was not synced may be lost with the power, the later part first.
type disk struct {
	image   cluster.DiskImage // what is durable
	cached  []cluster.Persist // answered without a sync
	queue   []cluster.Persist // not answered; the first `running` of them are in the running batch
	running int
	stuck   bool // the batch is done but for a hung sync
	failed  bool // nothing of the batch reached the disk, which had no room: it is tried again
	gone    bool // the directory was deleted: what is written goes to files without a name, until the agent notices
}

// written returns how many of the writes that are under way may have reached the disk.
func (d *disk) written() int {
	if d.failed {
		return 0
	}
	return len(d.queue)
}

// submit queues a write. Its slices are copied: the core may use them again.
func (d *disk) submit(p cluster.Persist) {
	p.Entries = slices.Clone(p.Entries)
	if p.Hard != nil {
		h := *p.Hard
		p.Hard = &h
	}
	if p.Notes != nil {
		n := *p.Notes
		p.Notes = &n
	}
	d.queue = append(d.queue, p)
}

// begin starts a batch of all that waits and tells whether it needs a sync.
func (d *disk) begin() (sync bool) {
	d.running = len(d.queue)
	for i := range d.queue {
		sync = sync || d.queue[i].Sync
	}
	return sync
}

// finish ends the running batch and returns the number of its last write.
func (d *disk) finish() uint64 {
	sync := false
	for i := range d.queue[:d.running] {
		sync = sync || d.queue[i].Sync
	}
	n := d.queue[d.running-1].N
	d.cached = append(d.cached, d.queue[:d.running]...)
	d.queue = slices.Delete(d.queue, 0, d.running)
	d.running, d.stuck, d.failed = 0, false, false
	if d.gone { // a write notices, and makes the directory anew with all that the agent knows
		sync, d.gone = true, false
	}
	if sync {
		d.settle(len(d.cached))
	}
	return n
}

// settle makes the first n cached writes durable and forgets the others.
func (d *disk) settle(n int) {
	for i := range d.cached[:n] {
		carryOut(&d.image, &d.cached[i])
	}
	clear(d.cached)
	d.cached = d.cached[:0]
}

// killed is what the end of the agent's process leaves: all that was answered, and the first n writes of
// those that were under way. The next agent syncs them before it reads.
func (d *disk) killed(n int) {
	d.cached = append(d.cached, d.queue[:n]...)
	d.settle(len(d.cached))
	d.drop()
}

// off is what a power loss leaves: the first n of all unsynced writes. Of the next one any part may be there, and
// of those after it any, in any order: whoever reads the disk drops all from the first one on that is not whole.
func (d *disk) off(n int) {
	d.cached = append(d.cached, d.queue[:d.written()]...)
	d.settle(n)
	d.drop()
}

func (d *disk) drop() {
	clear(d.queue)
	d.queue, d.running, d.stuck, d.failed = d.queue[:0], 0, false, false
}

// carryOut applies one write to an image.
func carryOut(to *cluster.DiskImage, p *cluster.Persist) {
	if p.Founding != nil && to.Founding == nil {
		to.Founding = p.Founding
	}
	if p.Hard != nil {
		to.Hard = *p.Hard
	}
	if p.Notes != nil {
		to.Notes = *p.Notes
	}
	if s := p.Snapshot; s != nil {
		to.Snapshot = s
		keep := slices.IndexFunc(to.Entries, func(e cluster.LogEntry) bool { return e.Index == s.Index && e.Term == s.Term })
		if keep < 0 {
			to.Entries = nil // another history: nothing of it counts
		} else {
			to.Entries = slices.Clone(to.Entries[keep+1:])
		}
	}
	if len(p.Entries) > 0 {
		first := p.Entries[0].Index
		at := slices.IndexFunc(to.Entries, func(e cluster.LogEntry) bool { return e.Index >= first })
		if at >= 0 {
			to.Entries = to.Entries[:at]
		}
		to.Entries = append(to.Entries, p.Entries...)
	}
}

// read returns a copy of what is durable.
func (d *disk) read() cluster.DiskImage {
	i := d.image
	i.Entries = slices.Clone(i.Entries)
	return i
}
