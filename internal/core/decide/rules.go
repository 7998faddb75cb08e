package decide

// Rule describes one rule of the planner, for the documentation.
type Rule struct {
	ID      string
	Verdict Verdict
	Why     string
}

// Rules lists the planner's rules in the order in which they are tried: those on instructions, on
// nodes, on groups, on the set of voters, on the draft of the configuration.
func Rules() []Rule {
	rules := make([]Rule, 0, len(instructionRules)+len(nodeRules)+len(groupRules))
	for _, r := range instructionRules {
		rules = append(rules, Rule{r.id, r.verdict, r.why})
	}
	for _, r := range nodeRules {
		rules = append(rules, Rule{r.id, r.verdict, r.why})
	}
	for _, r := range groupRules {
		rules = append(rules, Rule{r.id, r.verdict, r.why})
	}
	for _, r := range voterRules {
		rules = append(rules, Rule{r.id, Record, r.why})
	}
	for _, r := range draftRules {
		rules = append(rules, Rule{r.id, r.verdict, r.why})
	}
	return rules
}
