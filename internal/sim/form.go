package sim

import (
	"strings"

	"baton/internal/core/cluster"
	"baton/internal/core/node"
)

// form has an operator say on the first of the rest that the cluster is to be founded without some nodes.
func (w *world) form(f *active) {
	c := &node.Command{Op: node.OpForm, By: "operator"}
	for _, name := range strings.Fields(f.Words) {
		c.Without = append(c.Without, cluster.NodeID(name))
	}
	for _, m := range w.machines {
		if !m.out && !strings.Contains(" "+f.Words+" ", " "+string(m.id)+" ") {
			w.commands++
			c.ID = w.commands
			m.deliver(c)
			return
		}
	}
}

// unreached tells whether one of two founding records is of a node that could not be reached when an operator
// had the others found the cluster without it. Such a record is never held by a majority.
func (w *world) unreached(record []byte) bool {
	holders := make(map[string]int)
	for _, m := range w.machines {
		if r := m.disk.image.Founding; r != nil {
			holders[string(r)]++
		}
	}
	without := make(map[string]bool)
	held := 0
	for _, r := range []string{string(w.check.founding), string(record)} {
		rec, err := cluster.DecodeFounding([]byte(r))
		if err != nil {
			return false
		}
		without[rec.Without] = true
		if holders[r] >= cluster.Quorum(len(rec.Nodes)) {
			held++
		}
	}
	return len(without) == 2 && held < 2
}
