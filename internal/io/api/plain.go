package api

import (
	"context"
	"encoding/json"
	"net/http"
	"slices"
	"strings"

	"baton/internal/core/cluster"
)

// plain answers load balancers and monitors, which read little more than a code.
type plain struct {
	backend interface {
		Overview(ctx context.Context) (*cluster.Overview, error)
	}
}

func (p *plain) register(mux *http.ServeMux) {
	mux.HandleFunc("GET /healthz", p.healthy)
	mux.HandleFunc("GET /readyz", p.ready)
	mux.HandleFunc("GET /v1/groups/{group}/primary", p.primary)
}

// answer is the body of the plain paths.
type answer struct {
	OK      bool            `json:"ok"`
	Text    string          `json:"text"`
	Node    cluster.NodeID  `json:"node,omitempty"`
	Group   cluster.GroupID `json:"group,omitempty"`
	Owner   cluster.NodeID  `json:"owner,omitempty"`
	Epoch   cluster.Epoch   `json:"epoch,omitempty"`
	Serving bool            `json:"serving,omitempty"` // clients get what they should, by the owner's own word
	Why     string          `json:"why,omitempty"`     // not, though it is open
}

func (a answer) write(w http.ResponseWriter, bad int) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	if !a.OK {
		w.WriteHeader(bad)
	}
	_ = json.NewEncoder(w).Encode(a) // an error means that the peer has gone
}

// look returns the overview, or has answered that there is none.
func (p *plain) look(w http.ResponseWriter, r *http.Request) *cluster.Overview {
	ctx, cancel := context.WithTimeout(r.Context(), maxInterval)
	defer cancel()
	o, err := p.backend.Overview(ctx)
	if err != nil {
		answer{Text: "the agent does not answer: " + err.Error()}.write(w, http.StatusServiceUnavailable)
		return nil
	}
	return o
}

// healthy: the agent's loop turns.
func (p *plain) healthy(w http.ResponseWriter, r *http.Request) {
	if o := p.look(w, r); o != nil {
		answer{OK: true, Text: "the agent runs", Node: o.Node}.write(w, 0)
	}
}

// ready: the cluster is founded, this node hears a majority, it is not sick, and clients of the groups that it has open
// get what they should.
func (p *plain) ready(w http.ResponseWriter, r *http.Request) {
	o := p.look(w, r)
	switch {
	case o == nil:
	case o.Forming != "":
		answer{Text: "the cluster forms: " + o.Forming, Node: o.Node}.write(w, http.StatusServiceUnavailable)
	case !o.Quorum:
		answer{Text: "no majority of the voters is heard", Node: o.Node}.write(w, http.StatusServiceUnavailable)
	case slices.ContainsFunc(o.Nodes, func(n cluster.NodeView) bool { return n.ID == o.Node && n.Sick }):
		answer{Text: "this node is sick: its disk, run record or gate takes no write", Node: o.Node}.write(w, http.StatusServiceUnavailable)
	case degradedHere(o) != "":
		answer{Text: "this node does not serve what it has: " + degradedHere(o), Node: o.Node}.write(w, http.StatusServiceUnavailable)
	default:
		answer{OK: true, Text: "this node belongs to a majority", Node: o.Node}.write(w, 0)
	}
}

// degradedHere tells of which groups this node serves their clients less than they should get; empty: of none.
func degradedHere(o *cluster.Overview) string {
	var out []string
	for _, g := range o.Groups {
		if g.Owner == o.Node && g.Degraded != "" {
			out = append(out, string(g.ID)+" is degraded: "+g.Degraded)
		}
	}
	return strings.Join(out, "; ")
}

// primary: this node serves the group.
func (p *plain) primary(w http.ResponseWriter, r *http.Request) {
	o := p.look(w, r)
	if o == nil {
		return
	}
	id := cluster.GroupID(r.PathValue("group"))
	for _, g := range o.Groups {
		if g.ID != id {
			continue
		}
		a := answer{Node: o.Node, Group: id, Owner: g.Owner, Epoch: g.Epoch, Serving: g.Serving, Why: g.Degraded}
		switch {
		case g.Owner == o.Node && g.Serving:
			a.OK, a.Text = true, "this node serves"
		case g.Owner == o.Node && g.Degraded != "":
			a.Text = "this node has it, degraded: " + g.Degraded
		case g.Owner == o.Node:
			a.Text = "this node is to serve, and does not yet"
		case g.Owner == "":
			a.Text = "no node owns it"
		default:
			a.Text = string(g.Owner) + " owns it"
		}
		a.write(w, http.StatusServiceUnavailable)
		return
	}
	if o.Forming != "" {
		answer{Text: "the cluster forms: " + o.Forming, Node: o.Node}.write(w, http.StatusServiceUnavailable)
		return
	}
	answer{Text: "there is no such group", Node: o.Node, Group: id}.write(w, http.StatusNotFound)
}
