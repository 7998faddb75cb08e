package node

import "baton/internal/core/cluster"

// Tokens returns the tokens by the log of this node. Nobody changes what it returns.
func (n *Node) Tokens() []cluster.Token {
	if n.state == nil {
		return nil
	}
	return n.state.Tokens
}
