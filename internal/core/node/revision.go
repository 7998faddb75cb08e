package node

import "baton/internal/core/cluster"

// This file keeps which revision of the configuration is carried out here. That is more than to have applied it:
// links, gate and resources follow. Others rely on it for addresses that change hands, so it stands in the run
// record before it is said, and a later run of the agent, which may read an older revision first, does not go back.

// Revision returns the number of the configuration that counts here; 0: this node belongs to no cluster yet.
func (n *Node) Revision() cluster.Revision {
	if n.state == nil {
		return 0
	}
	return n.state.Revision()
}

// carryOut asks the caller to bring links, gate and resources into line with a configuration.
func (n *Node) carryOut(spec *cluster.Spec) {
	n.out.Spec, n.out.Revision = spec, n.Revision()
	n.asked, n.inLine = n.Revision(), false
}

// fittedTo takes the caller's word that a revision is carried out, and with it those after it of the same text.
func (n *Node) fittedTo(r cluster.Revision) {
	if n.asked <= r && r <= n.Revision() { // later ones have the same text, or they would have been asked for
		n.inLine, n.groupsDue = true, true
	}
}

// tendRevision says that a revision is carried out once that is in the run record.
func (n *Node) tendRevision() {
	if n.state == nil {
		return
	}
	if n.inLine {
		n.fitted = max(n.fitted, n.Revision())
	}
	if n.rec.Revision < n.fitted {
		n.rec.Revision, n.recDue = n.fitted, true
		return
	}
	if n.revised < n.rec.Revision && n.fitted >= n.rec.Revision && !n.recDue && n.recOK >= n.recN {
		n.revised = n.rec.Revision
		n.urgent()
		n.planDue, n.groupsDue = true, true
	}
}

// outdated tells whether a former run of this boot has carried out a later revision than the log here has come to:
// until it has come so far again nothing is changed or served, since others may have what this one still names.
func (n *Node) outdated() bool { return n.state.Revision() < n.rec.Revision }
