package api

import (
	"context"
	"errors"
	"reflect"
	"strings"
	"testing"

	"connectrpc.com/connect"

	batonv1 "baton/api/v1"
	"baton/internal/core/cluster"
)

// fakeConfig has two revisions and does as it is told.
type fakeConfig struct {
	conf   *cluster.Configuration
	drift  *cluster.Drift
	apply  func(context.Context, ApplyRequest) (ApplyReply, error)
	broken error
}

func (f *fakeConfig) Configuration(context.Context) (*cluster.Configuration, error) {
	if f.conf == nil {
		return &cluster.Configuration{}, f.broken
	}
	return f.conf, f.broken
}
func (f *fakeConfig) Compare(before, after []byte) []string {
	return []string{string(before) + " → " + string(after)}
}
func (f *fakeConfig) Apply(ctx context.Context, r ApplyRequest) (ApplyReply, error) {
	return f.apply(ctx, r)
}
func (f *fakeConfig) Validate(_ context.Context, text []byte) ([]Problem, error) {
	return []Problem{{Node: "alpha", Text: "no " + string(text)}}, f.broken
}
func (f *fakeConfig) DropDraft(_ context.Context, by string) (ApplyReply, error) {
	return ApplyReply{Done: true, Text: "given up by " + by}, f.broken
}
func (f *fakeConfig) File() File { return File{Node: "alpha", Path: "/f", Base: 1, Drift: f.drift} }
func (f *fakeConfig) Restore(context.Context) (Restored, error) {
	return Restored{File: "/f", Revision: 2, Copy: "/f.old"}, f.broken
}

func twoRevisions() *fake {
	f := newFake()
	f.conf = &cluster.Configuration{Revisions: []cluster.RevisionText{{Revision: 6, Text: []byte("six"), By: "alpha", Wall: 1}, {Revision: 7, Text: []byte("seven"), By: "anna", Wall: 2, Comment: "why"}}}
	return f
}

// Everything that a reply knows reaches the schema.
func TestNothingOfAReplyIsLeftOut(t *testing.T) {
	var a ApplyReply
	fill(reflect.ValueOf(&a).Elem())
	if left := unset(applyOf(&a).ProtoReflect(), "apply"); left != nil {
		t.Errorf("not filled: %v", left)
	}
	if got := ProblemsFrom(&batonv1.ValidateResponse{Problems: problemsOf(a.Problems)}); !reflect.DeepEqual(got, a.Problems) {
		t.Errorf("%v became %v", a.Problems, got)
	}
}

func TestRevisions(t *testing.T) {
	f := twoRevisions()
	f.conf.Draft = &cluster.DraftText{Draft: cluster.Draft{Base: 7}, By: "bert", Waits: "orders is not stopped yet"}
	_, c := serve(t, f)
	ctx := t.Context()
	r, err := c.Config.GetConfig(ctx, &batonv1.GetConfigRequest{})
	if err != nil || r.Text != "seven" || r.Revision.Revision != 7 || !r.Revision.Current || r.Revision.Comment != "why" || r.File != "/f" || r.FileBase != 1 || r.Draft.By != "bert" || r.Draft.Waits == "" {
		t.Errorf("the present one: %v, %v", r, err)
	}
	if r, err = c.Config.GetConfig(ctx, &batonv1.GetConfigRequest{Revision: 6}); err != nil || r.Text != "six" || r.Revision.Current {
		t.Errorf("revision 6: %v, %v", r, err)
	}
	if _, err = c.Config.GetConfig(ctx, &batonv1.GetConfigRequest{Revision: 5}); connect.CodeOf(err) != connect.CodeNotFound || Explain(err).Hint == "" {
		t.Errorf("revision 5: %v", err)
	}
	l, err := c.Config.ListRevisions(ctx, &batonv1.ListRevisionsRequest{})
	if err != nil || len(l.Revisions) != 2 || l.Revisions[0].Changes != nil || l.Revisions[1].Changes[0] != "six → seven" || !l.Revisions[1].Current {
		t.Errorf("%v, %v", l, err)
	}
	v, err := c.Config.Validate(ctx, &batonv1.ValidateRequest{Text: "x"})
	if err != nil || len(v.Problems) != 1 || v.Problems[0].Text != "no x" {
		t.Errorf("%v, %v", v, err)
	}
}

func TestDropDraft(t *testing.T) {
	_, c := serve(t, twoRevisions())
	if r, err := c.Config.DropDraft(t.Context(), &batonv1.DropDraftRequest{}); err != nil || !r.Done || !strings.Contains(r.Text, "root (uid 0)") {
		t.Errorf("%v, %v", r, err)
	}
}

func TestApplyCall(t *testing.T) {
	f := twoRevisions()
	var asked ApplyRequest
	f.apply = func(_ context.Context, r ApplyRequest) (ApplyReply, error) {
		asked = r
		return ApplyReply{Done: true, Revision: 8}, nil
	}
	_, c := serve(t, f)
	r, err := c.Config.Apply(t.Context(), &batonv1.ApplyRequest{Text: "eight", BaseRevision: 7, Comment: "c", DryRun: true, NoWait: true, Unchecked: true})
	if err != nil || r.Revision != 8 || string(asked.Text) != "eight" || asked.Base != 7 || asked.Comment != "c" || !asked.DryRun || !asked.NoWait || !asked.Unchecked || !strings.Contains(asked.By, "root (uid 0)") {
		t.Errorf("%v, %v; asked was %+v", r, err, asked)
	}
	for _, bad := range []*batonv1.ApplyRequest{{}, {Text: "x", Comment: strings.Repeat("x", maxComment+1)}} {
		if _, err := c.Config.Apply(t.Context(), bad); connect.CodeOf(err) != connect.CodeInvalidArgument {
			t.Errorf("%v", err)
		}
	}
	if _, err := c.Config.Apply(t.Context(), &batonv1.ApplyRequest{Text: strings.Repeat("x", maxText)}); connect.CodeOf(err) != connect.CodeResourceExhausted {
		t.Errorf("too long: %v", err)
	}
	f.apply = func(context.Context, ApplyRequest) (ApplyReply, error) {
		return ApplyReply{}, errors.New("it is stopping")
	}
	if _, err := c.Config.Apply(t.Context(), &batonv1.ApplyRequest{Text: "x"}); connect.CodeOf(err) != connect.CodeUnavailable {
		t.Errorf("%v", err)
	}
}

// Every answer of every service carries the note that the node's own file is not what counts; once it is,
// no answer does.
func TestNote(t *testing.T) {
	f := twoRevisions()
	f.drift = &cluster.Drift{Node: "alpha", File: "/etc/baton/cluster.yaml", Revision: 7, Lines: 3}
	f.view.Drift = f.drift
	_, c := serve(t, f)
	s, err := c.Status(t.Context(), &batonv1.StatusRequest{})
	want := "alpha: /etc/baton/cluster.yaml differs from revision 7 in 3 lines"
	if err != nil || s.Drift.GetText() != want || s.Drift.GetLines() != 3 {
		t.Errorf("%v, %v", s.GetDrift(), err)
	}
	if _, err := c.Config.GetConfig(t.Context(), &batonv1.GetConfigRequest{Revision: 99}); err == nil {
		t.Error("there is no revision 99")
	}
	if text, hint := c.Note(); text != want || hint != "baton apply /etc/baton/cluster.yaml, or baton config restore" {
		t.Errorf("note %q, hint %q", text, hint)
	}
	f.drift = nil
	if _, err := c.Version(t.Context(), &batonv1.VersionRequest{}); err != nil {
		t.Fatal(err)
	}
	if text, _ := c.Note(); text != "" {
		t.Errorf("note %q", text)
	}
	r, err := c.Config.Restore(t.Context(), &batonv1.RestoreRequest{})
	if err != nil || r.Copy != "/f.old" || r.Revision != 2 {
		t.Errorf("%v, %v", r, err)
	}
}
