package cluster

// Configuration is the cluster's configuration by the log of one node.
type Configuration struct {
	Revisions []RevisionText // oldest first; the last one counts
	Draft     *DraftText     // what is to follow it; nil: nothing
}

// Current returns the revision that counts, or nil while the cluster forms.
func (c *Configuration) Current() *RevisionText {
	if len(c.Revisions) == 0 {
		return nil
	}
	return &c.Revisions[len(c.Revisions)-1]
}

// RevisionText is one revision of the cluster file.
type RevisionText struct {
	Revision Revision `json:"revision"`
	Text     []byte   `json:"text"` // exact, with its comments
	By       string   `json:"by"`
	Wall     WallTime `json:"wall"`
	Comment  string   `json:"comment,omitempty"`
}

// DraftText is a draft under way.
type DraftText struct {
	Draft
	By    string   `json:"by"`
	Wall  WallTime `json:"wall"`
	Waits string   `json:"-"` // for what it waits, as this node sees it
}
