package lab

import (
	"bufio"
	"cmp"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"sync"
	"time"
)

const awaitInterval = 5 * time.Millisecond

// ProbeConfig says what a probe asks, and how often.
type ProbeConfig struct {
	Target netip.AddrPort // of an echo service (see ServeEcho)
	// TCP makes a new connection for each request, with 20 ms to connect and to be answered, one request
	// at a time; else requests are datagrams, sent on time whether answers come or not.
	TCP      bool
	Interval time.Duration // default 1 ms
}

// Probe is a client that asks a service all the time and notes who answers when. It runs as a process
// of its own, so that this program's garbage collection and load don't show in its times, and with a low
// real-time priority where that is permitted.
type Probe struct {
	process *Process
	stop    io.Closer
	read    chan struct{} // closed when the probe's output has ended

	mu     sync.Mutex
	record Record
}

// Reply is one answer. Times are on the clock of Now: Sent just before the request was given to the
// kernel; Received when the kernel had the answer (TCP: when the probe had read it).
type Reply struct {
	Seq            uint64 // of the request, from 0
	Node           string // who answered
	Epoch          uint64 // under which epoch; 0: it knows none
	Sent, Received time.Duration
}

// Record is what a probe has seen. Replies are in the order of arrival.
type Record struct {
	Began, Ended time.Duration // Ended: the last look at a probe that goes on
	Requests     uint64        // sent; known once the probe is stopped
	Replies      []Reply
	Strays       int // answers from an address that was not asked
}

// Gap is a time without replies.
type Gap struct {
	From, To time.Duration // received
	Open     bool          // no reply ended it, or none came before it
}

// Length returns how long the gap was.
func (g Gap) Length() time.Duration { return g.To - g.From }

// Tenure is the time in which one node answered under one epoch.
type Tenure struct {
	Node        string
	Epoch       uint64
	First, Last Reply // by the order of requests
	Replies     int
}

// Probe starts a probe on the host, as a client there.
func (h *Host) Probe(config ProbeConfig) (*Probe, error) {
	b := h.booted()
	if b == nil {
		return nil, fmt.Errorf("probe from %s: it is off", h.config.Name)
	}
	if config.Interval <= 0 {
		config.Interval = time.Millisecond
	}
	kind := "udp"
	if config.TCP {
		kind = "tcp"
	}
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	p := &Probe{read: make(chan struct{})}
	program := Program{
		Args: []string{self, kind, config.Target.String(), config.Interval.String()},
		Env:  []string{modeVariable + "=" + modeProbe},
	}
	out, in, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer in.Close()
	p.record.Began = Now()
	p.process, err = h.spawn(b, program, func(cmd *exec.Cmd) error {
		cmd.Stdout, cmd.Stderr = in, os.Stderr
		var err error
		p.stop, err = cmd.StdinPipe()
		return err
	})
	if err != nil {
		out.Close()
		return nil, err
	}
	go p.listen(out)
	return p, nil
}

// listen takes in the probe's lines until it ends.
func (p *Probe) listen(out *os.File) {
	defer close(p.read)
	defer out.Close()
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		p.mu.Lock()
		p.record.add(lines.Text())
		p.mu.Unlock()
	}
	p.mu.Lock()
	if p.record.Ended == 0 {
		p.record.Ended = Now() // it was killed, or its host was
	}
	p.mu.Unlock()
}

// add takes in one line of a probe; see probeMain.
func (r *Record) add(line string) {
	var reply Reply
	var requests uint64
	var ended time.Duration
	if n, _ := fmt.Sscanf(line, replyLine, &reply.Seq, &reply.Node, &reply.Epoch, &reply.Sent, &reply.Received); n == 5 {
		r.Replies = append(r.Replies, reply)
	} else if n, _ := fmt.Sscanf(line, endLine, &requests, &ended); n == 2 {
		r.Requests, r.Ended = requests, ended
	} else if line == strayLine {
		r.Strays++
	}
}

// Record returns what the probe has seen so far.
func (p *Probe) Record() Record {
	p.mu.Lock()
	defer p.mu.Unlock()
	r := p.record
	if r.Ended == 0 {
		r.Ended = Now()
	}
	r.Replies = slices.Clone(r.Replies)
	return r
}

// Await waits until the record satisfies a condition, which is asked every few milliseconds. It returns
// an error when that takes longer than limit, or the probe has ended.
func (p *Probe) Await(limit time.Duration, condition func(Record) bool) error {
	for deadline := time.Now().Add(limit); ; time.Sleep(awaitInterval) {
		var ended bool
		select {
		case <-p.read:
			ended = true
		default:
		}
		r := p.Record()
		switch {
		case condition(r):
			return nil
		case ended:
			return fmt.Errorf("wait for a probe's answers: the probe has ended: %v", r)
		case time.Now().After(deadline):
			return fmt.Errorf("wait for a probe's answers: not as asked after %v: %v", limit, r)
		}
	}
}

// Stop ends the probe, after it has waited a moment for late answers, and returns the whole record.
func (p *Probe) Stop() Record {
	p.stop.Close()
	<-p.process.Done()
	<-p.read
	return p.Record()
}

// AnsweredSince says whether the node, or any ("") answered a request that was sent after the instant.
func (r Record) AnsweredSince(since time.Duration, node string) bool {
	for _, reply := range slices.Backward(r.Replies) {
		if reply.Sent > since && (node == "" || reply.Node == node) {
			return true
		}
	}
	return false
}

// Gaps returns the times without replies of at least min, in order. The time from the last reply to the
// end counts, since an outage may not have ended; the time before the first counts only if none came.
func (r Record) Gaps(min time.Duration) []Gap {
	if len(r.Replies) == 0 {
		return []Gap{{From: r.Began, To: r.Ended, Open: true}}
	}
	var gaps []Gap
	last := r.Replies[0].Received
	for _, reply := range r.Replies[1:] {
		if reply.Received-last >= min {
			gaps = append(gaps, Gap{From: last, To: reply.Received})
		}
		last = max(last, reply.Received)
	}
	if r.Ended-last >= min {
		gaps = append(gaps, Gap{From: last, To: r.Ended, Open: true})
	}
	return gaps
}

// Outage returns the longest gap.
func (r Record) Outage() Gap {
	return slices.MaxFunc(append(r.Gaps(0), Gap{}), func(a, b Gap) int { return cmp.Compare(a.Length(), b.Length()) })
}

// Tenures returns who answered, in the order of their first requests. An answer of a service that knows no epoch at the
// moment counts to the one that its node had last.
func (r Record) Tenures() []Tenure {
	var tenures []Tenure
	replies := slices.Clone(r.Replies)
	slices.SortStableFunc(replies, func(a, b Reply) int { return cmp.Compare(a.Seq, b.Seq) })
	last := make(map[string]uint64)
	for _, reply := range replies {
		if reply.Epoch == 0 {
			reply.Epoch = last[reply.Node]
		}
		last[reply.Node] = reply.Epoch
		i := slices.IndexFunc(tenures, func(t Tenure) bool { return t.Node == reply.Node && t.Epoch == reply.Epoch })
		if i < 0 {
			i = len(tenures)
			tenures = append(tenures, Tenure{Node: reply.Node, Epoch: reply.Epoch, First: reply})
		}
		tenures[i].Last = reply
		tenures[i].Replies++
	}
	return tenures
}

// Overlap returns the longest time in which two nodes both served: from the sending of the first
// request that the newer one answered to the sending of the last that the older one answered. It is zero
// if no node answered a request that was sent after one that a later owner had answered. A node that
// serves twice can only be judged if the service knows its epoch.
func (r Record) Overlap() time.Duration {
	var longest time.Duration
	tenures := r.Tenures()
	for i, old := range tenures {
		for _, new := range tenures[i+1:] {
			first, second := old, new
			if new.Epoch < old.Epoch {
				first, second = new, old // the older owner answered only after the newer one
			}
			if first.Node != second.Node && first.Last.Seq > second.First.Seq {
				longest = max(longest, first.Last.Sent-second.First.Sent)
			}
		}
	}
	return longest
}

// String sums a record up in a few words.
func (r Record) String() string {
	s := fmt.Sprintf("%d replies in %v, outage %v, overlap %v", len(r.Replies),
		(r.Ended - r.Began).Round(time.Millisecond), r.Outage().Length().Round(time.Microsecond), r.Overlap())
	for _, t := range r.Tenures() {
		s += fmt.Sprintf("; %s/%d %d times", t.Node, t.Epoch, t.Replies)
	}
	return s
}
