package state

import (
	"fmt"
	"slices"

	"baton/internal/core/cluster"
)

// tokensMax bounds how many tokens there are: each request from afar is compared with all.
const tokensMax = 256

// token adds a token. The list is never changed in place, so that others may read the one that they have.
func (s *State) token(t *cluster.Token) string {
	switch {
	case slices.ContainsFunc(s.Tokens, func(x cluster.Token) bool { return x.Name == t.Name }):
		return "there is a token of that name"
	case len(s.Tokens) >= tokensMax:
		return fmt.Sprintf("there are %d tokens, and no more are allowed", tokensMax)
	}
	s.Tokens = append(slices.Clone(s.Tokens), *t)
	return ""
}

// untoken revokes a token.
func (s *State) untoken(u *cluster.Untoken) string {
	i := slices.IndexFunc(s.Tokens, func(x cluster.Token) bool { return x.Name == u.Name })
	if i < 0 {
		return "there is no such token"
	}
	s.Tokens = slices.Delete(slices.Clone(s.Tokens), i, i+1)
	return ""
}
