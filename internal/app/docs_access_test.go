package app

import (
	"maps"
	"slices"
	"strings"
	"testing"

	"baton/internal/io/api"
)

// roleDocs lists what each role adds.
func roleDocs(*testing.T) string {
	rules := api.Rules()
	rows := [][]string{{"role", "may call"}}
	for _, role := range []string{"view", "operate", "admin", "node", "invitation"} {
		var calls []string
		for _, call := range slices.Sorted(maps.Keys(rules)) {
			if rules[call] == role {
				calls = append(calls, quoted(strings.TrimPrefix(call, "Baton/")))
			}
		}
		rows = append(rows, []string{role, strings.Join(calls, ", ")})
	}
	return docsTable(rows)
}
