// Package reach finds out whether addresses answer: by ARP or neighbour discovery where they are on a network of this
// host, and by ICMP. What answers either, is reached.
//
// Questions come in rounds. In each, an address is asked up to three times, a third of the round apart, until it
// answers. It is reached while the last round was answered, and missed once Misses rounds in a row were not; between
// these nothing is said. So of two hosts that ask the same address, none still says that it is reached when the other
// already misses it: the address itself is gone.
//
// A round in which this host stood still counts for nothing.
package reach

import (
	"context"
	"log/slog"
	"net/netip"
	"slices"
	"sync"
	"time"
)

const (
	// Misses is how many rounds in a row go unanswered before an address is missed that is asked all the time; SoonMisses
	// of one that is asked only since it has been silent.
	Misses, SoonMisses = 5, 2
	// roundLeast bounds the load that the questions are.
	roundLeast   = 20 * time.Millisecond
	asksPerRound = 3
)

// Round returns how long a round is where a group serves again within takeover after a fault: Misses of them, and what
// follows, fit into it, unless it is very short.
func Round(takeover time.Duration) time.Duration { return max(roundLeast, takeover/8) }

// Target is an address to ask.
type Target struct {
	Addr netip.Addr
	// Interface is the index of the interface on whose network it is; 0: as the kernel's routes say.
	Interface int
	Soon      bool // SoonMisses are enough
}

// Questions says whom to ask.
type Questions struct {
	Targets []Target
	// Avoid are addresses of this host that are not to be a sender's: they move.
	Avoid []netip.Addr
	Round time.Duration
}

// Watch asks until the context ends. Before each round it asks look for the questions, and after it tells what answers,
// what does not for the moment, and what is missed; both are called from its goroutine, whose network namespace it works in. What can't be asked,
// since there is no way to it, does not answer. While there is nobody to ask it waits for a token of changed, which is
// to come after each change of what look returns; it may be nil where there always is.
func Watch(ctx context.Context, look func() Questions, changed <-chan struct{}, tell func(reached, doubted, missed []netip.Addr), log *slog.Logger) {
	a := &asker{log: log, answered: map[netip.Addr]bool{}, misses: map[netip.Addr]int{}}
	defer a.close()
	for ctx.Err() == nil {
		q := look()
		a.take(q)
		if len(q.Targets) == 0 {
			select {
			case <-ctx.Done():
			case <-changed:
			}
			continue
		}
		began := time.Now()
		for range asksPerRound {
			a.ask(q)
			pause(ctx, q.Round/asksPerRound)
		}
		if ctx.Err() == nil {
			tell(a.count(q, time.Since(began) > q.Round*3/2))
		}
	}
}

func pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}

// asker is what Watch keeps.
type asker struct {
	log     *slog.Logger
	echo    echo
	arp     map[int]*arpSocket // by interface
	avoid   []netip.Addr
	targets []netip.Addr
	misses  map[netip.Addr]int
	told    string // the last complaint
	readers sync.WaitGroup

	mu       sync.Mutex
	answered map[netip.Addr]bool // in this round
}

// take follows a change of what is to be asked.
func (a *asker) take(q Questions) {
	targets := make([]netip.Addr, 0, len(q.Targets))
	for _, t := range q.Targets {
		targets = append(targets, t.Addr)
	}
	a.avoid = q.Avoid
	if slices.Equal(targets, a.targets) {
		return
	}
	a.targets = targets
	a.closeARP() // their filters name the addresses
	for t := range a.misses {
		if !slices.Contains(targets, t) {
			delete(a.misses, t)
		}
	}
}

// ask asks all that have not answered in this round.
func (a *asker) ask(q Questions) {
	for _, t := range q.Targets {
		a.mu.Lock()
		done := a.answered[t.Addr]
		a.mu.Unlock()
		if done {
			continue
		}
		if err := a.question(t); err != nil && err.Error() != a.told {
			a.told = err.Error()
			a.log.Debug("not asked whether it answers", "address", t.Addr, "cause", err)
		}
	}
}

// heard takes an answer. It is called by the readers.
func (a *asker) heard(from netip.Addr) {
	a.mu.Lock()
	a.answered[from.Unmap().WithZone("")] = true
	a.mu.Unlock()
}

// count ends a round: it returns who answered, and whom Misses rounds in a row have missed. In a round in which this
// host stood still, answers may only not have been read yet.
func (a *asker) count(q Questions, stood bool) (reached, doubted, missed []netip.Addr) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, t := range q.Targets {
		if a.answered[t.Addr] {
			a.misses[t.Addr] = 0
			reached = append(reached, t.Addr)
			continue
		}
		if !stood {
			a.misses[t.Addr]++
		}
		if n := a.misses[t.Addr]; n >= Misses || t.Soon && n >= SoonMisses {
			missed = append(missed, t.Addr)
		} else {
			doubted = append(doubted, t.Addr)
		}
	}
	clear(a.answered)
	return reached, doubted, missed
}

func (a *asker) close() {
	a.closeARP()
	a.echo.close()
	a.readers.Wait()
}
