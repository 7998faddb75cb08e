package state

import (
	"fmt"
	"strings"
	"testing"

	"baton/internal/core/cluster"
)

func TestTokens(t *testing.T) {
	s := begin(t)
	index := s.Applied
	apply := func(p cluster.Part) string {
		index++
		l := s.Apply(index, &cluster.Entry{By: "root", Parts: []cluster.Part{p}})
		return strings.Join(l.Dropped, " ")
	}
	add := func(name string) string {
		return apply(cluster.Part{Token: &cluster.Token{Name: name, Role: "view", Hash: []byte(name)}})
	}
	if d := add("ci"); d != "" {
		t.Fatal(d)
	}
	before := s.Tokens
	if d := add("ci"); !strings.Contains(d, "of that name") {
		t.Errorf("twice: %q", d)
	}
	for i := range tokensMax - 1 {
		if d := add(fmt.Sprint(i)); d != "" {
			t.Fatal(d)
		}
	}
	if d := add("more"); !strings.Contains(d, "no more are allowed") {
		t.Errorf("beyond the limit: %q", d)
	}
	revoke := func(name string) string {
		return apply(cluster.Part{Untoken: &cluster.Untoken{Name: name}})
	}
	if d := revoke("ci"); d != "" {
		t.Error(d)
	}
	if d := revoke("ci"); !strings.Contains(d, "no such token") {
		t.Errorf("revoked twice: %q", d)
	}
	if len(before) != 1 || before[0].Name != "ci" {
		t.Errorf("a list that was handed out has changed: %v", before)
	}
	again, err := Decode(s.Encode(), read, Flaws{})
	if err != nil || len(again.Tokens) != tokensMax-1 || string(again.Tokens[0].Hash) != "0" {
		t.Errorf("after a snapshot: %d tokens, %v", len(again.Tokens), err)
	}
	if d := apply(cluster.Part{Deed: &cluster.Deed{Text: "invited beta"}}); d != "" {
		t.Error(d)
	}
	if did := s.Journal[len(s.Journal)-1].Did; len(did) != 1 || did[0] != "invited beta" {
		t.Errorf("a deed in the journal: %q", did)
	}
}
