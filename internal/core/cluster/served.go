package cluster

import (
	"fmt"
	"strings"
	"time"
)

// Served puts on record that a group serves again, and what the way there took. It was decided on Count-1
// such entries of the group. When clients were last served and when they first were again is what the nodes tell
// whose gates it was, each by its own clock; how these relate is known within bounds, and so is the length.
type Served struct {
	Group   GroupID  `json:"group"`
	Node    NodeID   `json:"node"`
	Epoch   Epoch    `json:"epoch"`
	Count   uint64   `json:"count"`
	Wall    WallTime `json:"wall"`              // when that was put on record
	Planned bool     `json:"planned,omitempty"` // somebody ordered what took the service away
	// Down is for how long nobody served, at the most; 0 where nothing served before. Least is the least that it can
	// have been.
	Down  time.Duration `json:"down,omitempty"`
	Least time.Duration `json:"least,omitempty"`
	Known Known         `json:"known,omitempty"`
	// Share is how much of it somebody ordered, where not all.
	Share time.Duration `json:"share,omitempty"`
	// Before is the epoch that was served before; 0: the outage was one within Epoch.
	Before Epoch  `json:"before,omitempty"`
	Phases Phases `json:"phases,omitzero"`
	// Cause is what took the service away within Epoch, by Node's word, where somebody did not order all of it. Why a
	// group came to another node stands in the entry that placed it.
	Cause string `json:"cause,omitempty"`
	// Ordered and Other are what Node has told of gaps in its service under Epoch so far: what it tells from now on that
	// is more is news.
	Ordered time.Duration `json:"ordered,omitempty"`
	Other   time.Duration `json:"other,omitempty"`
	// Counted is what was on record of gaps under Before, all in all, before this outage.
	Counted time.Duration `json:"counted,omitempty"`
}

// Known says how well the length of an outage is known.
type Known string

const (
	// Within: it is between Least and Down.
	Within Known = ""
	// AtMost: the node that had served has not told when it last did. It had until a while before it was not heard any
	// more. Should it come back within the same boot, it tells, and an Amend puts the length right.
	AtMost Known = "at most"
	// AtLeast: it began before anybody noticed.
	AtLeast Known = "at least"
	// About: by a wall clock, since the coordinator last wrote to its disk; or by neither end.
	About Known = "about"
	// NotKnown: nobody can tell. It counts as no time at all.
	NotKnown Known = "unknown"
)

// Amend puts the length of the outage right that the Served with that Count has told of: the node that had served
// before is back and has told until when.
type Amend struct {
	Group   GroupID       `json:"group"`
	Node    NodeID        `json:"node"` // that has told
	Epoch   Epoch         `json:"epoch"`
	Count   uint64        `json:"count"`
	Planned bool          `json:"planned,omitempty"`
	Down    time.Duration `json:"down,omitempty"`
	Least   time.Duration `json:"least,omitempty"`
	Known   Known         `json:"known,omitempty"`
}

// Phases are the parts of an outage, one after the other; they add up to it.
type Phases struct {
	Detected time.Duration `json:"detected,omitempty"` // until it was noticed
	Decided  time.Duration `json:"decided,omitempty"`  // until the new placement was committed
	Waited   time.Duration `json:"waited,omitempty"`   // until every former placement was over: promises, releases
	Started  time.Duration `json:"started,omitempty"`  // until resources ran, and the gate was open; without
	Paused   time.Duration `json:"paused,omitempty"`   // the pauses meanwhile, before another try of what had failed
}

// Shorten takes away from the beginning what a whole of the given length has no room for.
func (p Phases) Shorten(whole time.Duration) Phases {
	over := p.Detected + p.Decided + p.Waited + p.Paused + p.Started - whole
	for _, d := range []*time.Duration{&p.Detected, &p.Decided, &p.Waited, &p.Paused, &p.Started} {
		cut := max(0, min(over, *d))
		*d -= cut
		over -= cut
	}
	return p
}

// String renders the phases for people: "detected 905 ms, decided 3 ms, waited 61 ms, started 7 ms", and where there
// were pauses: "…, paused 4000 ms before another try".
func (p Phases) String() string {
	if p.Paused > 0 {
		paused := fmt.Sprintf("paused %s before another try", millis(p.Paused))
		if p.Paused = 0; p == (Phases{Started: p.Started}) {
			return paused + ", started " + millis(p.Started)
		}
		return p.String() + ", " + paused
	}
	return fmt.Sprintf("detected %s, decided %s, waited %s, started %s", millis(p.Detected), millis(p.Decided), millis(p.Waited), millis(p.Started))
}

// millis writes a duration in milliseconds; a long one as usual.
func millis(d time.Duration) string {
	if d < 10*time.Second {
		return fmt.Sprintf("%d ms", d.Round(time.Millisecond).Milliseconds())
	}
	return strings.TrimSuffix(d.Round(time.Second).String(), "0s")
}

// Span writes for how long an outage lasted, as well as that is known. It is never written shorter than it was
// without "at least".
func Span(down, least time.Duration, known Known) string {
	up := func(d time.Duration) time.Duration { // a length is rounded up
		unit := time.Millisecond
		if d >= 10*time.Second {
			unit = time.Second
		}
		return (d + unit - 1).Truncate(unit)
	}
	switch known {
	case AtMost:
		return "at most " + millis(up(down))
	case AtLeast:
		text := "unknown length"
		if least >= time.Millisecond/2 {
			text = "at least " + millis(least)
		}
		if slack := down - least; slack > time.Millisecond && slack > down/50 { // availability goes by that
			text += ", counted as " + millis(up(down))
		}
		return text
	case About:
		return "about " + millis(up(down))
	case NotKnown:
		return "unknown length"
	}
	if slack := down - least; slack > time.Millisecond && slack > down/50 {
		return strings.TrimSuffix(millis(least), " ms") + " to " + millis(up(down))
	}
	return millis(up(down))
}

func (s *Served) String() string {
	text := fmt.Sprintf("%s serves on %s, epoch %d", s.Group, s.Node, s.Epoch)
	if s.Down == 0 && s.Known == Within {
		return text
	}
	text += fmt.Sprintf(", after %s outage of %s", kindOf(s.Planned), Span(s.Down, s.Least, s.Known))
	if s.Share > 0 {
		text += fmt.Sprintf(", %s of it planned", Span(s.Share, s.Share, Within))
	}
	if s.Cause != "" {
		text += fmt.Sprintf(" (%s)", s.Cause)
	}
	switch {
	case s.Known == AtLeast && min(s.Phases.Paused, s.Least) >= time.Millisecond/2: // in what is over it clients may have been served
		text += ": paused " + millis(min(s.Phases.Paused, s.Least)) + " before another try"
	case s.Phases != (Phases{}) && s.Known != AtLeast:
		text += ": " + s.Phases.String()
	}
	return text
}

func kindOf(planned bool) string {
	if planned {
		return "planned"
	}
	return "unplanned"
}

func (a *Amend) String() string {
	return fmt.Sprintf("the %s outage of %s before epoch %d was one of %s", kindOf(a.Planned), a.Group, a.Epoch, Span(a.Down, a.Least, a.Known))
}

// ServiceView is how a group has served so far.
type ServiceView struct {
	First     WallTime      // when it first served: everything counts from here; 0: never
	Since     WallTime      // since when it serves, or when it last began to
	Planned   time.Duration // outages that somebody ordered, by the log: the most that they can have lasted
	Unplanned time.Duration // the others, by the log
	Open      bool          // some of that is "at most", until a node is back that can tell
	Down      time.Duration // the outage under way, as seen from here; 0: it serves
	Moves     MoveCounts
}

// MoveCounts counts by reason how often a group came to another node.
type MoveCounts struct {
	Switchovers uint64 `json:"switchovers,omitempty"`
	Failbacks   uint64 `json:"failbacks,omitempty"`
	Failovers   uint64 `json:"failovers,omitempty"`
}
