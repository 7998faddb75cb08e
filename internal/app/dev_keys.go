package app

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"
)

// deed is what a key does.
type deed struct {
	key  byte
	word string // what a person may type in full, where lines are read
	help string
	do   func(*player, context.Context) error
}

// deeds are all keys, in the order of the help line.
func deeds() []deed {
	return []deed{
		{'p', "power", "power", (*player).power},
		{'l', "cable", "cable", (*player).cable},
		{'s', "silent", "silent", (*player).silent},
		{'f', "freeze", "freeze", (*player).freeze},
		{'k', "service", "kill service", (*player).service},
		{'a', "agent", "kill agent", (*player).agent},
		{'w', "switch", "switch", (*player).switchOver},
		{'b', "failback", "failback", (*player).failBack},
		{'h', "heal", "heal", (*player).heal},
		{'t', "status", "status", (*player).table},
		{'q', "quit", "quit", (*player).quit},
	}
}

// deedOf finds what a key or a typed line asks for; nil: nothing. The line is a key or a word.
func deedOf(line string) *deed {
	line = strings.ToLower(strings.TrimSpace(line))
	for _, d := range deeds() {
		if line == string(d.key) || line == d.word {
			return &d
		}
	}
	return nil
}

// keyText is one key of the help line.
func keyText(p palette, key byte, help string) string {
	return " " + p.text(bold, string(key)) + " " + help + " "
}

// keyHelp is the help line, or two where the terminal is narrow.
func keyHelp(p palette, width int) []string {
	var lines []string
	line, used := "", 0
	for _, d := range deeds() {
		n := 1 + 1 + 1 + len(d.help) + 1
		if used+n >= width && line != "" {
			lines, line, used = append(lines, line), "", 0
		}
		line += keyText(p, d.key, d.help)
		used += n
	}
	return append(lines, line)
}

// readDeeds reads keys from a terminal, or else lines, and hands on what they ask for until ctx ends or
// the input does; asked is closed then. What it returns ends the reader and restores the terminal.
func readDeeds(ctx context.Context, in io.Reader) (asked chan string, restore func()) {
	asked = make(chan string)
	over := func() { close(asked) }
	ctx, cancel := context.WithCancel(ctx)
	hand := func(what string) bool {
		select {
		case asked <- what:
			return true
		case <-ctx.Done():
			return false
		}
	}
	if f, isFile := in.(*os.File); isFile {
		key := func(k byte) bool { return hand(string(k)) }
		if release, ok := takeKeys(ctx, f, key, over); ok {
			return asked, func() {
				cancel() // first: the reader may wait for somebody who asks
				release()
			}
		}
	}
	// This reader can't be interrupted: it ends with the process, or with its input.
	go func() {
		defer over()
		for lines := bufio.NewScanner(in); lines.Scan() && hand(lines.Text()); {
		}
	}()
	return asked, cancel
}

// Times of a player.
const (
	tableAfter = 700 * time.Millisecond // after a deed, besides takeover, once the group is served
	tableLimit = 6 * time.Second        // after a deed, in any case
)

// player does what a person asks for.
type player struct {
	*session
	moves   sync.WaitGroup
	moved   chan event
	acted   time.Time // when something was done last; zero: its table has been shown
	leaving bool
}

// person is who sits at a demo: what they type, from its beginning on.
type person struct {
	asked  chan string // closed, or nil, when nothing more comes
	early  []string    // typed before there was something to do it to
	leaves bool        // they quit then
	// watches says that they sit at a terminal: their quit waits for nothing.
	watches bool
}

// hear takes in a line before the cluster serves. To quit needs no cluster; other deeds are done once it serves, and a
// quit behind them waits for them.
func (p *person) hear(line string, more bool) {
	d := deedOf(line)
	switch {
	case !more:
		p.asked = nil
		p.early = append(p.early, "quit")
	case d != nil && d.key == 'q' && (p.watches || len(p.early) == 0):
		p.leaves = true
	case d != nil:
		p.early = append(p.early, line)
	}
}

// play lets a person play until they quit, or ctx or the input ends.
func (s *session) play(ctx context.Context, who *person) error {
	p := &player{session: s, moved: make(chan event, 1)}
	ctx, cancel := context.WithCancel(ctx)
	defer p.moves.Wait()
	defer cancel()
	s.until(ctx, tableLimit, func() bool {
		select {
		case line, more := <-who.asked:
			who.hear(line, more)
		default:
		}
		return who.leaves || s.steady()
	})
	if who.leaves {
		return nil
	}
	s.showStatus()
	if s.screen.tty == nil {
		s.screen.write(strings.Join(keyHelp(s.screen.palette, s.screen.width()), "\n") + "\n")
	}
	for ctx.Err() == nil && !p.leaving {
		if len(who.early) > 0 {
			p.act(ctx, who.early[0])
			who.early = who.early[1:]
			continue
		}
		select {
		case line, more := <-who.asked:
			if !more {
				return nil
			}
			p.act(ctx, line)
		case e := <-p.moved:
			s.screen.add(e)
		default:
			s.pass(ctx)
		}
		p.tableWhenDue()
	}
	return nil
}

func (p *player) act(ctx context.Context, line string) {
	d := deedOf(line)
	if d == nil {
		return
	}
	if err := d.do(p, ctx); err != nil {
		p.screen.say("you", red, "%s: %v", d.help, err)
	}
	p.refresh()
}

// tableWhenDue shows the status after a deed, when its effects are over.
func (p *player) tableWhenDue() {
	since := time.Since(p.acted)
	if p.acted.IsZero() || since < tableAfter+p.plan.spec.Timing.Takeover || !p.served() && since < tableLimit {
		return
	}
	p.acted = time.Time{}
	p.showStatus()
}

// did notes a deed.
func (p *player) did(format string, args ...any) {
	p.acted = time.Now()
	p.screen.say("you", yellow, format, args...)
}

// owner is the node that serves, or, if nobody does, that did last.
func (p *player) owner() string {
	g := p.group()
	if g.Owner != "" {
		return g.Owner
	}
	return g.Last
}

func (p *player) power(context.Context) error {
	for _, n := range p.plan.nodes() {
		if !p.ground.on(n) {
			p.did("switch %s on", n)
			return p.ground.powerOn(n)
		}
	}
	p.did("cut the power of %s", p.owner())
	return p.ground.powerOff(p.owner())
}

// hurt does something to the owner, if it has power.
func (p *player) hurt(what string, do func(node string) error) error {
	n := p.owner()
	if !p.ground.on(n) {
		return fmt.Errorf("%s is off", n)
	}
	if err := do(n); err != nil {
		return err
	}
	p.did(what, n)
	return nil
}

func (p *player) cable(context.Context) error {
	return p.hurt("pull the LAN cable of %s", p.ground.cutCable)
}

func (p *player) silent(context.Context) error {
	return p.hurt("cut %s off from everybody, its carrier stays", p.ground.cutSilently)
}

func (p *player) freeze(context.Context) error {
	for _, n := range p.plan.nodes() {
		if strings.Contains(p.ground.upset(n), upsetFrozen) {
			p.did("let the agent of %s go on", n)
			return p.ground.thaw(n)
		}
	}
	return p.hurt("freeze the agent of %s (SIGSTOP)", p.ground.freeze)
}

func (p *player) service(context.Context) error {
	return p.hurt("kill the service on %s", func(n string) error { return p.ground.killService(n, p.plan.group) })
}

func (p *player) agent(context.Context) error {
	return p.hurt("kill -9 the agent of %s; it is started again", p.ground.killAgent)
}

func (p *player) switchOver(ctx context.Context) error { return p.move(ctx, "switch over", false) }
func (p *player) failBack(ctx context.Context) error   { return p.move(ctx, "fail back", true) }

// move asks for a move, and tells later what became of it.
func (p *player) move(ctx context.Context, what string, failback bool) error {
	p.did("%s", what)
	status := p.status
	p.moves.Go(func() {
		e := event{who: "baton", colour: green}
		var err error
		if e.text, err = p.askOf(ctx, status, failback); err != nil {
			e.text, e.colour = what+": "+err.Error(), red
		}
		e.at = time.Now()
		select {
		case p.moved <- e:
		case <-ctx.Done():
		}
	})
	return nil
}

func (p *player) heal(context.Context) error {
	p.did("heal everything")
	return p.ground.heal()
}

func (p *player) table(context.Context) error {
	p.acted = time.Time{}
	p.showStatus()
	return nil
}

func (p *player) quit(context.Context) error {
	p.leaving = true
	return nil
}
