package config

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"baton/internal/core/cluster"
)

// Answers are what a first cluster file is proposed from.
type Answers struct {
	Cluster  string
	Takeover time.Duration // 0: the default
	KeyFile  string        // empty: the default
	Nodes    []cluster.NodeSpec
	Group    string         // the first group's name; empty: as the cluster
	Command  string         // the program to run, as a shell splits it; empty: none
	User     string         // whom it runs as
	Port     uint16         // on which it listens; 0: not known
	VIPs     []netip.Prefix // clients' addresses
}

// GoodName tells whether a cluster, node, group or resource may have the name.
func GoodName(name string) bool { return nameRule.MatchString(name) }

// Propose writes a commented cluster file. If the answers make sense (good names, three nodes or more,
// addresses that differ), Parse accepts it; if not, Parse says what is wrong.
func Propose(a Answers) []byte {
	var b strings.Builder
	line := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	line("# The cluster file, the same on every node. `baton check` judges it. Once the cluster runs, change it with")
	line("# `baton edit` or `baton apply FILE`: the cluster keeps its text, with the comments, in numbered revisions.")
	line("cluster: %s", quoted(a.Cluster))
	line("")
	line("# After any single fault a group serves again within this time, its own start-up excluded. All timers follow.")
	line("takeover: %s", brief(cmp.Or(a.Takeover, DefaultTakeover)))
	if a.KeyFile != "" && a.KeyFile != DefaultKeyFile {
		line("key_file: %s", quoted(a.KeyFile))
	}
	line("")
	line("# member: runs groups and votes. spare: runs groups when no member can. witness: votes, runs nothing.")
	line("nodes:")
	for _, n := range a.Nodes {
		role := ""
		if n.Role != cluster.Member {
			role = ", role: " + n.Role.String()
		}
		line("  %s: { address: %s%s }", quoted(string(n.ID)), quoted(n.Address.String()), role)
	}
	line("")
	line("# Heartbeats go over all links at once. Without this part: UDP port %d on each node's address. A second network", DefaultPort)
	line("# (here a cable between two nodes) lets the cluster tell a broken link from a dead node.")
	line("#links:")
	line("#  - { name: lan,   udp: { port: %d } }", DefaultPort)
	if len(a.Nodes) >= 2 {
		line("#  - { name: cross, udp: { port: %d, addresses: { %s: 192.168.9.1, %s: 192.168.9.2 } } }", DefaultPort, a.Nodes[0].ID, a.Nodes[1].ID)
	}
	line("")
	b.WriteString(proposedGroup(&a))
	return []byte(b.String())
}

func proposedGroup(a *Answers) string {
	var b strings.Builder
	line := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	var members []string
	for _, role := range []cluster.Role{cluster.Member, cluster.Spare} {
		for _, n := range a.Nodes {
			if n.Role == role {
				members = append(members, quoted(string(n.ID)))
			}
		}
	}
	given := a.Command != "" || len(a.VIPs) > 0
	line("# A group is what moves together. Its first node is preferred, but gets it back on a command only (failback: never).")
	if !given {
		line("# Nothing is to run yet. For example:")
	}
	line("groups:")
	line("  %s:", quoted(cmp.Or(a.Group, a.Cluster)))
	line("    nodes: [%s]", strings.Join(members, ", "))
	line("    resources:                       # started in this order, stopped in reverse")
	switch {
	case a.Command != "":
		line("      - process:")
		line("          command: %s", quoted(a.Command))
		line("          user: %s", quoted(a.User))
		if a.Port > 0 {
			line("          ready: { tcp: \"localhost:%d\" }", a.Port)
			line("          healthy: { tcp: \"localhost:%d\" }", a.Port)
		}
	case !given:
		line("      - process: { command: /usr/local/bin/app, user: app }")
	}
	for _, vip := range a.VIPs {
		line("      - vip: %s               # clients use this address", quoted(vip.String()))
	}
	if !given {
		line("      - vip: ADDRESS/BITS")
	}
	if given {
		return b.String()
	}
	lines := strings.Split(strings.TrimSuffix(b.String(), "\n"), "\n")
	for i, l := range lines {
		if !strings.HasPrefix(l, "#") {
			lines[i] = "#" + l
		}
	}
	return strings.Join(lines, "\n") + "\n"
}

// plainWords are texts that YAML takes for something else than a text.
var plainWords = []string{"null", "true", "false", "yes", "no", "on", "off", "~", "y", "n", "inf", "nan"}

// quoted writes a text so that YAML reads it as that text: in single quotes unless it is plain.
func quoted(text string) string {
	plain := text != "" && !slices.Contains(plainWords, strings.ToLower(text)) && strings.Trim(text, "0123456789+-._eExXoOaAbBcCdDfF") != ""
	for i, r := range text {
		letter := r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9'
		plain = plain && (letter || r == '/' || r == '_' || i > 0 && strings.ContainsRune("-./@+=", r) || i > 0 && r == ' ' && i < len(text)-1)
	}
	if plain || isAddress(text) {
		return text
	}
	return "'" + strings.ReplaceAll(text, "'", "''") + "'"
}

// isAddress tells whether a text is an IPv4 address, with or without a prefix length, which YAML leaves alone.
func isAddress(text string) bool {
	a, err := netip.ParseAddr(text)
	if p, bad := netip.ParsePrefix(text); bad == nil {
		a, err = p.Addr(), nil
	}
	return err == nil && a.Is4()
}
