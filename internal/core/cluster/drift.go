package cluster

import "fmt"

// Drift tells that a node's own copy of the cluster file is not what the cluster goes by.
type Drift struct {
	Node     NodeID
	File     string
	Revision Revision // that the cluster goes by
	Lines    uint64   // that differ
	Trouble  string   // why the file can't be read or written; empty: it can
	Again    bool     // the write is tried again by itself
}

// Text says it in one sentence.
func (d *Drift) Text() string {
	if d.Trouble != "" {
		return fmt.Sprintf("%s: %s is not revision %d: %s", d.Node, d.File, d.Revision, d.Trouble)
	}
	lines := "lines"
	if d.Lines == 1 {
		lines = "line"
	}
	return fmt.Sprintf("%s: %s differs from revision %d in %d %s", d.Node, d.File, d.Revision, d.Lines, lines)
}

// Hint says what to do about it. A file in trouble may hold a former text: applied, it would undo what came since.
func (d *Drift) Hint() string {
	switch {
	case d.Again:
		return "mend that, or make room: it is tried again by itself"
	case d.Trouble != "":
		return "mend that, then baton config restore"
	}
	return fmt.Sprintf("baton apply %s, or baton config restore", d.File)
}
