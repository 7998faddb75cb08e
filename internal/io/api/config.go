package api

import (
	"context"
	"net/http"

	"connectrpc.com/connect"

	batonv1 "baton/api/v1"
	"baton/internal/core/cluster"
)

// ConfigBackend is what a Server asks about the configuration.
type ConfigBackend interface {
	// Configuration returns the revisions as far as this node has them. It needs no quorum.
	Configuration(ctx context.Context) (*cluster.Configuration, error)
	// Compare tells how one text differs from another, in the words of the file.
	Compare(before, after []byte) []string
	// Apply makes a text the configuration and returns the outcome, as Backend.Move does.
	Apply(ctx context.Context, r ApplyRequest) (ApplyReply, error)
	// DropDraft gives up the change that is under way, and returns the outcome.
	DropDraft(ctx context.Context, by string) (ApplyReply, error)
	// Validate returns why this node can't take a text; none: it can.
	Validate(ctx context.Context, text []byte) ([]Problem, error)
	// File tells of this node's own file.
	File() File
	// Restore writes the present revision over this node's own file.
	Restore(ctx context.Context) (Restored, error)
}

// ApplyRequest asks that a text become the configuration.
type ApplyRequest struct {
	Text      []byte
	Base      cluster.Revision // that the text was made from; 0: the present one
	Comment   string
	By        string // who asked
	DryRun    bool   // only say what would happen
	NoWait    bool   // return once the change has begun
	Unchecked bool   // go on though a node that is heard could not be asked
}

// ApplyReply is the outcome of an ApplyRequest.
type ApplyReply struct {
	Done     bool   // false: refused or failed. Of a dry run: it would be done
	Text     string // one sentence
	Hint     string
	Revision cluster.Revision // the new one
	Base     cluster.Revision
	Changes  []string // in the words of the file
	Effects  []Effect
	Problems []Problem
	UnderWay bool // it has begun, and nobody waited for its end
}

// Effect is one thing that a change does: config.Effect, which this package may not know.
type Effect struct {
	Group cluster.GroupID
	Node  cluster.NodeID
	Kind  string
	Text  string
}

// Problem is why a text won't do on a node.
type Problem struct {
	Node      cluster.NodeID // empty: on none
	Text      string
	Hint      string
	Unreached bool // the node could not be asked
	Silent    bool // nor does the cluster hear it
}

// File tells of a node's own copy of the cluster file.
type File struct {
	Node  cluster.NodeID
	Path  string
	Base  cluster.Revision // that it was made from; 0: not known
	Drift *cluster.Drift   // nil: it is as the present revision
}

// Restored is what Restore did.
type Restored struct {
	File     string
	Revision cluster.Revision
	Copy     string // of what stood there; empty: none was needed
}

// maxText bounds a request that carries a cluster file, in bytes.
const maxText = 2 << 20

// maxComment bounds a revision's comment, in bytes.
const maxComment = 1000

// configHandlers implements the schema's service Config.
type configHandlers struct{ backend ConfigBackend }

func problemsOf(problems []Problem) (out []*batonv1.Problem) {
	for _, p := range problems {
		out = append(out, &batonv1.Problem{Node: string(p.Node), Text: p.Text, Hint: p.Hint, Unreached: p.Unreached, Silent: p.Silent})
	}
	return out
}

// ProblemsFrom returns what another node answered to Validate.
func ProblemsFrom(r *batonv1.ValidateResponse) (out []Problem) {
	for _, p := range r.Problems {
		out = append(out, Problem{Node: cluster.NodeID(p.Node), Text: p.Text, Hint: p.Hint, Unreached: p.Unreached, Silent: p.Silent})
	}
	return out
}

func applyOf(a *ApplyReply) *batonv1.ApplyResponse {
	out := &batonv1.ApplyResponse{Done: a.Done, Text: a.Text, Hint: a.Hint, Revision: uint64(a.Revision), BaseRevision: uint64(a.Base),
		Changes: a.Changes, Problems: problemsOf(a.Problems), UnderWay: a.UnderWay}
	for _, e := range a.Effects {
		out.Effects = append(out.Effects, &batonv1.Effect{Group: string(e.Group), Node: string(e.Node), Kind: e.Kind, Text: e.Text})
	}
	return out
}

func revisionOf(r *cluster.RevisionText) *batonv1.Revision {
	return &batonv1.Revision{Revision: uint64(r.Revision), By: r.By, Time: stamp(r.Wall), Comment: r.Comment}
}

func driftOf(d *cluster.Drift) *batonv1.Drift {
	if d == nil {
		return nil
	}
	return &batonv1.Drift{Node: string(d.Node), File: d.File, Revision: uint64(d.Revision), Lines: d.Lines, Text: d.Text(), Hint: d.Hint()}
}

func (h *configHandlers) Apply(ctx context.Context, r *batonv1.ApplyRequest) (*batonv1.ApplyResponse, error) {
	switch {
	case r.Text == "":
		return nil, failure(connect.CodeInvalidArgument, "send the whole cluster file", "no text is given")
	case len(r.Comment) > maxComment:
		return nil, failure(connect.CodeInvalidArgument, "shorten it", "the comment has %d bytes, more than %d", len(r.Comment), maxComment)
	}
	a, err := h.backend.Apply(ctx, ApplyRequest{Text: []byte(r.Text), Base: cluster.Revision(r.BaseRevision), Comment: r.Comment,
		By: peerOf(ctx).String(), DryRun: r.DryRun, NoWait: r.NoWait, Unchecked: r.Unchecked})
	if err != nil {
		return nil, failed("change the configuration", err)
	}
	return applyOf(&a), nil
}

// configuration returns the configuration, once there is one.
func (h *configHandlers) configuration(ctx context.Context) (*cluster.Configuration, error) {
	ctx, cancel := context.WithTimeout(ctx, answerTimeout)
	defer cancel()
	c, err := h.backend.Configuration(ctx)
	switch {
	case err != nil:
		return nil, failed("read the configuration", err)
	case c.Current() == nil:
		return nil, failure(connect.CodeUnavailable, "baton status --wait", "the cluster is still forming, and has no configuration of its own yet")
	}
	return c, nil
}

func (h *configHandlers) GetConfig(ctx context.Context, r *batonv1.GetConfigRequest) (*batonv1.GetConfigResponse, error) {
	c, err := h.configuration(ctx)
	if err != nil {
		return nil, err
	}
	found := c.Current()
	for i := range c.Revisions {
		if c.Revisions[i].Revision == cluster.Revision(r.Revision) {
			found = &c.Revisions[i]
		}
	}
	if r.Revision != 0 && found.Revision != cluster.Revision(r.Revision) {
		return nil, failure(connect.CodeNotFound, "baton config history lists them", "this node has no revision %d: it has %d to %d",
			r.Revision, c.Revisions[0].Revision, c.Current().Revision)
	}
	file := h.backend.File()
	out := &batonv1.GetConfigResponse{Revision: revisionOf(found), Text: string(found.Text), Node: string(file.Node), File: file.Path, FileBase: uint64(file.Base), Drift: driftOf(file.Drift)}
	out.Revision.Current = found.Revision == c.Current().Revision
	if d := c.Draft; d != nil {
		out.Draft = draftOf(d)
	}
	return out, nil
}

func draftOf(d *cluster.DraftText) *batonv1.RevisionDraft {
	return &batonv1.RevisionDraft{BaseRevision: uint64(d.Base), By: d.By, Time: stamp(d.Wall), Comment: d.Comment, Waits: d.Waits}
}

func (h *configHandlers) ListRevisions(ctx context.Context, _ *batonv1.ListRevisionsRequest) (*batonv1.ListRevisionsResponse, error) {
	c, err := h.configuration(ctx)
	if err != nil {
		return nil, err
	}
	out := &batonv1.ListRevisionsResponse{}
	for i := range c.Revisions {
		r := revisionOf(&c.Revisions[i])
		r.Current = i == len(c.Revisions)-1
		if i > 0 {
			r.Changes = h.backend.Compare(c.Revisions[i-1].Text, c.Revisions[i].Text)
		}
		out.Revisions = append(out.Revisions, r)
	}
	return out, nil
}

func (h *configHandlers) Validate(ctx context.Context, r *batonv1.ValidateRequest) (*batonv1.ValidateResponse, error) {
	ctx, cancel := context.WithTimeout(ctx, answerTimeout)
	defer cancel()
	problems, err := h.backend.Validate(ctx, []byte(r.Text))
	if err != nil {
		return nil, failed("check the text", err)
	}
	return &batonv1.ValidateResponse{Problems: problemsOf(problems)}, nil
}

func (h *configHandlers) DropDraft(ctx context.Context, _ *batonv1.DropDraftRequest) (*batonv1.DropDraftResponse, error) {
	a, err := h.backend.DropDraft(ctx, peerOf(ctx).String())
	if err != nil {
		return nil, failed("give up the change", err)
	}
	return &batonv1.DropDraftResponse{Done: a.Done, Text: a.Text, Hint: a.Hint}, nil
}

func (h *configHandlers) Restore(ctx context.Context, _ *batonv1.RestoreRequest) (*batonv1.RestoreResponse, error) {
	if _, err := h.configuration(ctx); err != nil {
		return nil, err
	}
	r, err := h.backend.Restore(ctx)
	if err != nil {
		return nil, failure(connect.CodeInternal, "", "restore the file: %w", err)
	}
	return &batonv1.RestoreResponse{File: r.File, Revision: uint64(r.Revision), Copy: r.Copy}, nil
}

// NoteHeader carries a note on the node that answers, NoteHintHeader what to do about it: every command
// says when its node's file is not what the cluster goes by.
const (
	NoteHeader     = "Baton-Note"
	NoteHintHeader = "Baton-Note-Hint"
)

// noting adds the note to every answer.
func noting(b ConfigBackend, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if d := b.File().Drift; d != nil && peerOf(r.Context()).role != guest {
			w.Header().Set(NoteHeader, d.Text())
			w.Header().Set(NoteHintHeader, d.Hint())
		}
		next.ServeHTTP(w, r)
	})
}
