package cluster

import (
	"fmt"
	"strings"
	"time"
)

// Served puts on record that a group serves again, and what the way there took. It was decided on Count-1
// such entries of the group. The coordinator measures by its own clock, from the last it heard of the
// former service to the first it hears of the new one.
type Served struct {
	Group   GroupID  `json:"group"`
	Node    NodeID   `json:"node"`
	Epoch   Epoch    `json:"epoch"`
	Count   uint64   `json:"count"`
	Wall    WallTime `json:"wall"`              // since when it serves
	Planned bool     `json:"planned,omitempty"` // somebody asked for what took the service away
	// Down is for how long nobody served; 0 where nothing served before.
	Down time.Duration `json:"down,omitempty"`
	// Rough says that nobody saw the service end: Down counts from the coordinator's last write to its disk.
	Rough  bool   `json:"rough,omitempty"`
	Phases Phases `json:"phases,omitzero"`
}

// Phases are the parts of an outage, one after the other; they add up to it.
type Phases struct {
	Detected time.Duration `json:"detected,omitempty"` // until it was noticed
	Decided  time.Duration `json:"decided,omitempty"`  // until the new placement was committed
	Waited   time.Duration `json:"waited,omitempty"`   // until every former placement was over: promises, releases
	Started  time.Duration `json:"started,omitempty"`  // until resources ran, and the gate was open
}

// String renders the phases for people: "detected 905 ms, decided 3 ms, waited 61 ms, started 7 ms".
func (p Phases) String() string {
	return fmt.Sprintf("detected %s, decided %s, waited %s, started %s", millis(p.Detected), millis(p.Decided), millis(p.Waited), millis(p.Started))
}

// millis writes a duration in milliseconds; a long one as usual.
func millis(d time.Duration) string {
	if d < 10*time.Second {
		return fmt.Sprintf("%d ms", d.Round(time.Millisecond).Milliseconds())
	}
	return strings.TrimSuffix(d.Round(time.Second).String(), "0s")
}

func (s *Served) String() string {
	text := fmt.Sprintf("%s serves on %s, epoch %d", s.Group, s.Node, s.Epoch)
	if s.Down == 0 {
		return text
	}
	kind := "unplanned"
	if s.Planned {
		kind = "planned"
	}
	about := ""
	if s.Rough {
		about = "about "
	}
	text += fmt.Sprintf(", after %s outage of %s%s", kind, about, millis(s.Down))
	if s.Phases != (Phases{}) {
		text += ": " + s.Phases.String()
	}
	return text
}

// ServiceView is how a group has served so far.
type ServiceView struct {
	First     WallTime      // when it first served: everything counts from here; 0: never
	Since     WallTime      // since when it serves, or when it last began to
	Planned   time.Duration // outages that somebody asked for, by the log
	Unplanned time.Duration // the others, by the log
	Down      time.Duration // the outage under way, as seen from here; 0: it serves
	Moves     MoveCounts
}

// MoveCounts counts by reason how often a group came to another node.
type MoveCounts struct {
	Switchovers uint64 `json:"switchovers,omitempty"`
	Failbacks   uint64 `json:"failbacks,omitempty"`
	Failovers   uint64 `json:"failovers,omitempty"`
}
