package sim

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Kind is a kind of fault, by its verb.
type Kind uint8

// The kinds of faults. Where a fault has an end, the world undoes it then.
const (
	Power      Kind = iota // NODE: power loss; at its end the node boots. Unsynced writes may be lost
	Wipe                   // NODE: power loss and a lost disk: boots with an empty data directory
	SetBack                // NODE TIME: power loss; the disk comes back as it was so long before
	Kill                   // NODE: kill -9 of the agent; at its end it starts again, with its run record
	Forget                 // NODE: as kill, but the run record is lost: gates are closed before the agent starts
	Freeze                 // NODE: the agent is frozen (SIGSTOP), the kernel runs on
	Cut                    // NODE NODE [LINK]: nothing passes between two nodes
	OneWay                 // NODE NODE [LINK]: nothing passes from the first to the second
	Isolate                // NODE: nothing passes to or from a node, on any link
	Link                   // LINK: the link is dead, silently
	Carrier                // LINK: the link is dead and its interfaces say so
	Uplink                 // NODE: the interface of the groups' addresses has no carrier
	Loss                   // LINK PERCENT: packets are lost
	Dup                    // LINK PERCENT: packets come twice
	Late                   // LINK PERCENT TIME: packets come up to this much later, so out of order
	Replay                 // LINK PERCENT TIME: packets come again, up to this much later
	Drift                  // NODE PPM: the clock's rate
	Wall                   // NODE TIME: the wall clock jumps forward, or back if negative (calendars and ends of bans only)
	SlowDisk               // NODE TIME: a sync takes this long
	HangDisk               // NODE: no sync ends
	LateGate               // NODE TIME: a gate write reaches the kernel this much later
	Fail                   // NODE GROUP: the group's first resource fails by itself
	NoStart                // NODE GROUP: starts fail
	NoStop                 // NODE GROUP: stops do not end in time
	Narrow                 // NODE NODE BYTES: from the first to the second, packets above this size are dropped silently on every link
	MTU                    // LINK BYTES: packets above this size are dropped silently
	Starve                 // NODE BUSY PERIOD: the machine does nothing for BUSY in each PERIOD; packets wait
	FailGate               // NODE: no gate write succeeds; the agent tries again. None starts meanwhile
	FailRecord             // NODE: the run record can't be written; the agent tries again
	FlushGate              // NODE: others take the gate out of the kernel: nothing is filtered until the agent puts it back
	Ungate                 // NODE: others take the gate out of the kernel, and it can't be put back: the agent says so
	DiskFull               // NODE: writes of the log fail and are tried again. No agent starts meanwhile
	DiskError              // NODE: writes of the log fail with an error (EIO) and are tried again; nobody knows what of them is there. No agent starts meanwhile
	DropRun                // NODE: the run directory is deleted, and with it the run record. The agent, if it runs, makes it anew with its next write
	DropData               // NODE: the data directory is deleted. The agent, if it lives until its next write, makes it anew; else the disk is lost
	Suspend                // NODE: the machine is suspended; its clock goes on, and its agent is told when it wakes
	PauseClock             // NODE: a guest is paused, its clock stands still, and nobody tells it
	Skew                   // NODE NODE TIME: what goes from the first to the second takes so much longer
	Bloat                  // LINK TIME: one queue for all that the link carries, up to so long; what finds it full is lost
	FlapLink               // LINK UP DOWN: dead, with its interfaces saying so, for DOWN, then well for UP, and so on
	FlapUplink             // NODE UP DOWN: as flaplink, with the carrier of the groups' addresses
	Unreadable             // NODE: it can't read texts of the configuration that it has not read before
	Lack                   // NODE GROUP: the host lacks what the group's first resource needs: it fails, and so do starts
	DropAddr               // NODE GROUP: the group's address is taken away once
	Port                   // NODE LINK: the node's switch port on the link is dead, its carrier stays
	PortIn                 // NODE LINK: what goes to the node is lost there, no more
	PortOut                // NODE LINK: what comes from the node is lost there, no more
	Unreach                // NODE: the target does not answer this node
	NoTarget               // : the target answers nobody
	NoAnswer               // GROUP: what the health check of the group's program asks for answers nobody; the program runs on
	Unanswered             // NODE GROUP: what the health check of the group's program asks for does not answer this node
	Switch                 // GROUP [NODE]: command: a switchover, to the best node where none is named
	Failback               // GROUP: command: return to the preferred node
	Apply                  // WORD...: command: change the configuration: +NODE, -NODE, +GROUP, -GROUP, takeover=TIME, mark=GROUP (its program is described anew), pad=BYTES (the text is so much longer)
	Pause                  // GROUP|all [for DURATION]: command: watch it, but decide nothing. Its end is the coordinator's doing, as of those below
	Resume                 // GROUP|all: command: end the pause
	Pin                    // GROUP NODE [for TIME]: command: the group runs there or nowhere
	Unpin                  // GROUP: command: end the pin
	Drain                  // NODE [for TIME]: command: move every group off it, and keep them off
	Undrain                // NODE: command: end the drain
	Stop                   // GROUP[/RESOURCE] [for TIME]: command: stop it, and keep it so. A group has the resources app and ip
	Start                  // GROUP[/RESOURCE]: command: start what was stopped
	Restart                // GROUP[/RESOURCE]: command: stop and start it where it is
	Clear                  // GROUP[/RESOURCE]: command: forget its failures
	Form                   // NODE...: command: found the cluster without these, said to the first node of the rest
	kindCount
)

// shape says what a kind's text form holds.
type shape struct {
	verb               string
	nodes              int
	group, link        bool
	percent, duration  bool
	ppm, words, bytes  bool
	signed             bool // the duration may be negative
	second             bool // a second duration
	lasts              bool // it has an end
	standing           bool // a command that carries its end
	optNode, wholeLink bool // the last node, or the link, may be missing
}

var shapes = [kindCount]shape{
	Power:      {verb: "power", nodes: 1, lasts: true},
	Wipe:       {verb: "wipe", nodes: 1, lasts: true},
	SetBack:    {verb: "setback", nodes: 1, duration: true, lasts: true},
	Kill:       {verb: "kill", nodes: 1, lasts: true},
	Forget:     {verb: "forget", nodes: 1, lasts: true},
	Freeze:     {verb: "freeze", nodes: 1, lasts: true},
	Cut:        {verb: "cut", nodes: 2, link: true, lasts: true, wholeLink: true},
	OneWay:     {verb: "cutoneway", nodes: 2, link: true, lasts: true, wholeLink: true},
	Isolate:    {verb: "isolate", nodes: 1, lasts: true},
	Link:       {verb: "link", link: true, lasts: true},
	Carrier:    {verb: "carrier", link: true, lasts: true},
	Uplink:     {verb: "uplink", nodes: 1, lasts: true},
	Loss:       {verb: "loss", link: true, percent: true, lasts: true},
	Dup:        {verb: "dup", link: true, percent: true, lasts: true},
	Late:       {verb: "delay", link: true, percent: true, duration: true, lasts: true},
	Replay:     {verb: "replay", link: true, percent: true, duration: true, lasts: true},
	Drift:      {verb: "drift", nodes: 1, ppm: true},
	Wall:       {verb: "wall", nodes: 1, duration: true, signed: true},
	SlowDisk:   {verb: "slowdisk", nodes: 1, duration: true, lasts: true},
	HangDisk:   {verb: "hangdisk", nodes: 1, lasts: true},
	LateGate:   {verb: "lategate", nodes: 1, duration: true, lasts: true},
	Fail:       {verb: "fail", nodes: 1, group: true},
	NoStart:    {verb: "failstart", nodes: 1, group: true, lasts: true},
	NoStop:     {verb: "failstop", nodes: 1, group: true, lasts: true},
	Narrow:     {verb: "narrow", nodes: 2, bytes: true, lasts: true},
	MTU:        {verb: "mtu", link: true, bytes: true, lasts: true},
	Starve:     {verb: "starve", nodes: 1, duration: true, second: true, lasts: true},
	FailGate:   {verb: "failgate", nodes: 1, lasts: true},
	FailRecord: {verb: "failrecord", nodes: 1, lasts: true},
	FlushGate:  {verb: "flushgate", nodes: 1},
	Ungate:     {verb: "ungate", nodes: 1, lasts: true},
	DiskFull:   {verb: "diskfull", nodes: 1, lasts: true},
	DiskError:  {verb: "diskerror", nodes: 1, lasts: true},
	DropRun:    {verb: "droprun", nodes: 1},
	DropData:   {verb: "dropdata", nodes: 1},
	Suspend:    {verb: "suspend", nodes: 1, lasts: true},
	PauseClock: {verb: "pauseclock", nodes: 1, lasts: true},
	Skew:       {verb: "skew", nodes: 2, duration: true, lasts: true},
	Bloat:      {verb: "bloat", link: true, duration: true, lasts: true},
	FlapLink:   {verb: "flaplink", link: true, duration: true, second: true, lasts: true},
	FlapUplink: {verb: "flapuplink", nodes: 1, duration: true, second: true, lasts: true},
	Unreadable: {verb: "unreadable", nodes: 1, lasts: true},
	Lack:       {verb: "lack", nodes: 1, group: true, lasts: true},
	DropAddr:   {verb: "dropaddr", nodes: 1, group: true},
	Port:       {verb: "port", nodes: 1, link: true, lasts: true},
	PortIn:     {verb: "portin", nodes: 1, link: true, lasts: true},
	PortOut:    {verb: "portout", nodes: 1, link: true, lasts: true},
	Unreach:    {verb: "unreach", nodes: 1, lasts: true},
	NoTarget:   {verb: "notarget", lasts: true},
	NoAnswer:   {verb: "noanswer", group: true, lasts: true},
	Unanswered: {verb: "unanswered", nodes: 1, group: true, lasts: true},
	Switch:     {verb: "switch", group: true, nodes: 1, optNode: true},
	Failback:   {verb: "failback", group: true},
	Apply:      {verb: "apply", words: true},
	Pause:      {verb: "pause", group: true, standing: true},
	Resume:     {verb: "resume", group: true},
	Pin:        {verb: "pin", group: true, nodes: 1, optNode: true, standing: true},
	Unpin:      {verb: "unpin", group: true},
	Drain:      {verb: "drain", nodes: 1, standing: true},
	Undrain:    {verb: "undrain", nodes: 1},
	Stop:       {verb: "stop", group: true, standing: true},
	Start:      {verb: "start", group: true},
	Restart:    {verb: "restart", group: true},
	Clear:      {verb: "clear", group: true},
	Form:       {verb: "form", words: true},
}

func (k Kind) String() string { return shapes[k].verb }

// Names that stand for a node and are looked up when the fault begins.
const (
	TheOwner       = "@owner"       // who serves the first group, or served it last
	TheCoordinator = "@coordinator" // who last said that it leads
	TheOther       = "@other"       // the first node that is neither
)

// Fault is one fault as data: what happens when, and for how long.
type Fault struct {
	At      time.Duration
	Kind    Kind
	Node    string // a name, or one of TheOwner, TheCoordinator, TheOther
	Peer    string // second node of a cut
	Group   string // of a command: with /RESOURCE, or "all"
	Link    int    // index; -1: every link
	Percent int
	Amount  time.Duration // how late, how slow; of Starve: busy; of flaps: up
	Second  time.Duration // of Starve: the period; of flaps: down
	Bytes   int
	PPM     int64
	Words   string        // of Apply and Form
	For     time.Duration // how long it lasts; 0: to the end of the run
	line    int           // of the script that it was read from; 0: of none
}

// Links are named lan, cross, third in scripts.
var linkNames = []string{"lan", "cross", "third"}

func linkName(i int) string {
	if i < len(linkNames) {
		return linkNames[i]
	}
	return strconv.Itoa(i)
}

func (f *Fault) String() string {
	s := shapes[f.Kind]
	b := new(strings.Builder)
	fmt.Fprintf(b, "at %v %s", f.At, s.verb)
	word := func(w string) {
		if w != "" {
			b.WriteByte(' ')
			b.WriteString(w)
		}
	}
	if s.group && s.optNode { // a command names its group first
		word(f.Group)
	}
	if s.nodes > 0 {
		word(f.Node)
	}
	if s.nodes > 1 {
		word(f.Peer)
	}
	if s.group && !s.optNode {
		word(f.Group)
	}
	if s.link {
		switch {
		case f.Link >= 0:
			word(linkName(f.Link))
		case !s.wholeLink:
			word("all")
		}
	}
	if s.percent {
		word(strconv.Itoa(f.Percent) + "%")
	}
	if s.bytes {
		word(strconv.Itoa(f.Bytes))
	}
	if s.duration {
		word(f.Amount.String())
	}
	if s.second {
		word(f.Second.String())
	}
	if s.ppm {
		word(strconv.FormatInt(f.PPM, 10) + "ppm")
	}
	word(f.Words)
	if (s.lasts || s.standing) && f.For > 0 {
		word("for " + f.For.String())
	}
	return b.String()
}

// parseFault reads the words of a line after its "at TIME".
func parseFault(at time.Duration, words, links []string) (Fault, error) {
	f := Fault{At: at, Link: -1, Kind: kindCount}
	for k := range shapes {
		if shapes[k].verb == words[0] {
			f.Kind = Kind(k)
		}
	}
	if f.Kind == kindCount {
		return f, fmt.Errorf("unknown verb %s", quote(words[0]))
	}
	s := shapes[f.Kind]
	words = words[1:]
	if s.words {
		if len(words) == 0 {
			return f, fmt.Errorf("%s: arguments are missing", s.verb)
		}
		f.Words = strings.Join(words, " ")
		words = nil
	}
	if i := slices.Index(words, "for"); i >= 0 && (s.lasts || s.standing) && i+1 < len(words) {
		d, err := span(words[i+1])
		if err == nil && d == 0 {
			err = fmt.Errorf("for %s: it would end before it begins", words[i+1])
		}
		if err != nil {
			return f, fmt.Errorf("%s: %w", s.verb, err)
		}
		f.For = d
		words = words[:i]
	}
	next := func() string {
		if len(words) == 0 {
			return ""
		}
		w := words[0]
		words = words[1:]
		return w
	}
	if s.group && s.optNode {
		f.Group = next()
	}
	if s.nodes > 0 {
		f.Node = next()
	}
	if s.nodes > 1 {
		f.Peer = next()
	}
	if s.group && !s.optNode {
		f.Group = next()
	}
	if err := f.parseAmounts(s, links, next); err != nil {
		return f, err
	}
	if len(words) > 0 {
		return f, fmt.Errorf("%s: unexpected %q", s.verb, words[0])
	}
	if f.Kind == Pin && f.Node == "" {
		return f, fmt.Errorf("pin: the node is missing")
	}
	if s.group && f.Group == "" || s.nodes > 0 && f.Node == "" && !s.optNode || s.nodes > 1 && f.Peer == "" {
		return f, fmt.Errorf("%s: a name is missing", s.verb)
	}
	return f, nil
}

func (f *Fault) parseAmounts(s shape, links []string, next func() string) error {
	if s.link {
		w := next()
		f.Link = slices.Index(links, w)
		if f.Link < 0 && w != "all" && (w != "" || !s.wholeLink) {
			return fmt.Errorf("%s: unknown link %q", s.verb, w)
		}
	}
	if s.percent {
		w := next()
		n, err := strconv.Atoi(strings.TrimSuffix(w, "%"))
		if err != nil || n < 0 || n > 100 {
			return fmt.Errorf("%s: %q is no percentage", s.verb, w)
		}
		f.Percent = n
	}
	if s.bytes {
		w := next()
		n, err := strconv.Atoi(w)
		if err != nil || n < 1 {
			return fmt.Errorf("%s: %q is no number of bytes, such as 1400", s.verb, w)
		}
		f.Bytes = n
	}
	if s.duration {
		read := span
		if s.signed {
			read = duration
		}
		d, err := read(next())
		if err != nil {
			return fmt.Errorf("%s: %w", s.verb, err)
		}
		f.Amount = d
	}
	if s.second {
		w := next()
		d, err := span(w)
		if err != nil || d == 0 || f.Amount == 0 {
			return fmt.Errorf("%s: it takes two lengths of time, such as 20ms 100ms, not %q", s.verb, w)
		}
		if d+f.Amount < time.Millisecond {
			return fmt.Errorf("%s: nothing changes more often than each millisecond", s.verb)
		}
		f.Second = d
	}
	if s.ppm {
		w := next()
		n, err := strconv.ParseInt(strings.TrimSuffix(w, "ppm"), 10, 64)
		if err != nil {
			return fmt.Errorf("%s: %s is no rate of a clock, such as 2000ppm", s.verb, quote(w))
		}
		f.PPM = n
	}
	return nil
}
