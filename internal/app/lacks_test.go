package app

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"baton/internal/core/cluster"
	"baton/internal/core/node"
)

// What a look shows, and what has failed though a look shows nothing.
func TestGatherLacks(t *testing.T) {
	spec := specOf(t, "3s", "", program("web", "true", 7001)+program("db", "true", 7002)+
		"  others:\n    nodes: [b]\n    resources:\n      - process: { name: p, command: [sh], user: root }\n")
	l, now, missing := newLacks(), time.Now(), map[cluster.ResourceID]error{}
	look := func(r cluster.ResourceSpec) error { return missing[r.ID] }
	gather := func() (text string, wait time.Duration) {
		t.Helper()
		list, wait := l.gather(spec, "a", look, now)
		for _, x := range list {
			text += string(x.Group) + "/" + string(x.Resource) + " " + x.Why + "; "
		}
		return text, wait
	}
	expect := func(want string, wantWait time.Duration) {
		t.Helper()
		if got, wait := gather(); got != want || wait != wantWait {
			t.Errorf("got %q, the next look after %v; want %q, %v", got, wait, want, wantWait)
		}
	}
	fails := func(surroundings bool) {
		l.note(cluster.Done{Group: "web", Resource: "p", Status: cluster.StatusFailed, Reason: "taken away", Surroundings: surroundings}, now)
	}
	expect("", lacksEvery)
	missing["p"] = errors.New("no user")
	expect("db/p no user; web/p no user; ", lackEvery)
	delete(missing, "p")
	expect("", lacksEvery)

	fails(false)
	expect("", lacksEvery)
	fails(true)
	expect("web/p taken away; ", 0)
	expect("", lacksEvery)

	// Again, a moment later: it waits, and longer each time.
	for _, wait := range []time.Duration{time.Second, 2 * time.Second, 4 * time.Second} {
		now = now.Add(time.Second / 2)
		fails(true)
		expect("web/p taken away; ", wait)
		now = now.Add(wait - 1)
		expect("web/p taken away; ", 1)
		now = now.Add(1)
		expect("", lacksEvery)
	}
	now = now.Add(lackAgain)
	fails(true)
	expect("web/p taken away; ", 0)
	expect("", lacksEvery)

	// A look shows it as well.
	now = now.Add(lackAgain)
	missing["p"] = errors.New("no user")
	fails(true)
	expect("db/p no user; web/p no user; ", lackEvery)
	delete(missing, "p")
	expect("", lacksEvery)
}

// A user's program is missing from the start, comes, and goes: the core is told each time, at once where something
// fails for it.
func TestWatchLacks(t *testing.T) {
	a, _, log := owingAgent(t)
	program := filepath.Join(t.TempDir(), "program")
	a.spec = specOf(t, "3s", "", "  web:\n    nodes: [a, b]\n    resources:\n      - process: { name: p, command: ["+program+"], user: root }\n")
	a.shared.Store(a.spec)
	var err error
	if a.inbox, err = newInbox(false); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() { a.watchLacks(ctx); close(ended) }()
	defer func() { cancel(); <-ended }()
	var seen []node.Input
	next := func(what string) any {
		t.Helper()
		for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
			a.inbox.mu.Lock()
			seen = append(seen, a.inbox.inputs...)
			a.inbox.inputs = nil
			a.inbox.mu.Unlock()
			if len(seen) > 0 {
				in := seen[0]
				seen = seen[1:]
				return in
			}
		}
		t.Fatal("not told: " + what)
		return nil
	}
	lacks := func(what, why string) {
		t.Helper()
		l, ok := next(what).(*node.Lacking)
		if !ok || (len(l.Lacks) == 0) != (why == "") || why != "" && (l.Lacks[0].Group != "web" || l.Lacks[0].Resource != "p" || !strings.Contains(l.Lacks[0].Why, why)) {
			t.Errorf("%s: told %+v", what, l)
		}
	}
	lacks("the program is missing", "no such file")
	aside := program + ".new"
	if err := errors.Join(os.WriteFile(aside, []byte("#!/bin/sh\n"), 0o755), os.Rename(aside, program)); err != nil { // it comes whole
		t.Fatal(err)
	}
	lacks("the program has come", "")
	if err := os.Remove(program); err != nil {
		t.Fatal(err)
	}
	d := cluster.Done{N: 3, Group: "web", Resource: "p", Status: cluster.StatusFailed, Reason: "fork/exec: no such file", Surroundings: true}
	begun := time.Now()
	a.done(d)
	if in := next("the failure"); !reflect.DeepEqual(in, &node.Done{Done: d}) {
		t.Errorf("first came %+v", in)
	}
	lacks("the program has gone", "no such file")
	if took := time.Since(begun); took > lacksEvery/2 {
		t.Errorf("told after %v", took)
	}
	if n := strings.Count(log.String(), "lacks what it takes"); n != 2 || strings.Count(log.String(), "has again") != 1 {
		t.Errorf("the log:\n%s", log)
	}
}

// What fails for its surroundings a second time is fit again when its second is over, not at the next look that comes
// round.
func TestFitAgainInTime(t *testing.T) {
	a, _, _ := owingAgent(t)
	a.spec = specOf(t, "3s", "", "  web:\n    nodes: [a, b]\n    resources:\n      - process: { name: p, command: [sh], user: root }\n")
	a.shared.Store(a.spec)
	var err error
	if a.inbox, err = newInbox(false); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() { a.watchLacks(ctx); close(ended) }()
	defer func() { cancel(); <-ended }()
	var told []node.Input // and not looked at yet
	lacking := func(want bool) {
		t.Helper()
		for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
			a.inbox.mu.Lock()
			told = append(told, a.inbox.inputs...)
			a.inbox.inputs = nil
			a.inbox.mu.Unlock()
			for len(told) > 0 {
				in := told[0]
				told = told[1:]
				if l, ok := in.(*node.Lacking); ok && len(l.Lacks) > 0 == want {
					return
				}
			}
		}
		t.Fatalf("not told that something is lacking: %v", want)
	}
	fail := func() {
		a.lacks.note(cluster.Done{Group: "web", Resource: "p", Status: cluster.StatusFailed, Reason: "taken away", Surroundings: true}, time.Now())
	}
	fail()
	lacking(true)
	time.Sleep(2 * lackLeast) // the end of the first may be told together with its beginning
	fail()
	begun := time.Now()
	lacking(true)
	lacking(false)
	if took := time.Since(begun); took < lackFirst || took > lackEvery*3/4 {
		t.Errorf("fit again after %v, want %v", took, lackFirst)
	}
}
