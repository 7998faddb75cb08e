package api

import (
	"slices"
	"testing"

	batonv1 "baton/api/v1"
	"baton/internal/core/cluster"
)

// What only beta sees of itself, and of the ways from it to others, every node tells; of one that can't be asked, that
// there is something.
func TestFaultsOfOthers(t *testing.T) {
	alpha, beta := newTeller("alpha"), newTeller("beta")
	alpha.view.Nodes = []cluster.NodeView{{ID: "alpha", Faults: []cluster.LinkFault{{Link: "(gate)", Text: "off"}}}, {ID: "beta", Faulty: true}, {ID: "gamma"}}
	beta.view.Nodes = []cluster.NodeView{{ID: "alpha", Faults: []cluster.LinkFault{{Link: "lan", Text: "narrow", Hint: "mend it"}}},
		{ID: "beta", Faults: []cluster.LinkFault{{Link: "cross", Text: "no address"}}}, {ID: "gamma"}}
	own := "alpha (gate) off by "
	look := func(want []string, faulty bool) { // each time another agent: answers are kept for a while
		t.Helper()
		_, c := serve(t, alpha)
		s, err := c.Status(t.Context(), &batonv1.StatusRequest{})
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, n := range s.Nodes {
			for _, f := range n.Faults {
				got = append(got, n.Name+" "+f.Link+" "+f.Text+" by "+f.By)
			}
		}
		if !slices.Equal(got, want) || s.Nodes[1].Faulty != faulty {
			t.Errorf("faults %q, faulty %v", got, s.Nodes[1].Faulty)
		}
	}
	look([]string{own}, true)
	socket, _ := serve(t, beta)
	asked := 0
	alpha.peers["beta"] = func() *Client { asked++; return Dial(socket) }
	look([]string{own, "alpha lan narrow by beta", "beta cross no address by beta"}, true)
	for i := range beta.view.Nodes {
		beta.view.Nodes[i].Faults = nil
	}
	look([]string{own}, false)
	alpha.view.Nodes[1].Faulty = false
	if look([]string{own}, false); asked != 2 {
		t.Errorf("beta was asked %d times", asked)
	}
}
