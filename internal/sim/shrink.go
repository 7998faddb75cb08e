package sim

import "time"

// shrinkRuns bounds how many runs a shrinking may take.
const shrinkRuns = 2000

// Shrink makes a failing plan smaller: it drops faults, shortens others, and ends early, as long as the
// same rule still breaks. It returns the smallest plan found and its violation.
func Shrink(p *Plan, opt Options) (*Plan, *Violation) {
	opt.Trace = nil
	runs := 0
	fails := func(q *Plan) *Violation {
		if runs++; runs > shrinkRuns || opt.stopped() {
			return nil
		}
		r, err := RunPlan(q, opt)
		if err != nil {
			return nil
		}
		return r.Violation
	}
	best := p.clone()
	found := fails(best)
	if found == nil {
		return p, nil
	}
	rule := found.Rule
	try := func(q *Plan) bool {
		v := fails(q)
		if v == nil || v.Rule != rule {
			return false
		}
		best, found = q, v
		return true
	}
	for n := max(len(best.Faults)/2, 1); ; {
		if !dropSome(best, n, try, &best) {
			if n == 1 {
				break
			}
			n /= 2
		}
	}
	shorten(try, &best)
	q := best.clone()
	q.StallEvery, q.Codec = 0, false
	try(q)
	return best, found
}

// dropSome tries to do without each run of n faults; it tells whether it could drop any.
func dropSome(p *Plan, n int, try func(*Plan) bool, best **Plan) bool {
	dropped := false
	for i := 0; i+n <= len((*best).Faults); {
		q := (*best).clone()
		q.Faults = append(q.Faults[:i], q.Faults[i+n:]...)
		if try(q) {
			dropped = true
			continue
		}
		i += n
	}
	return dropped
}

// shorten halves what lasts, and rounds what need not be exact.
func shorten(try func(*Plan) bool, best **Plan) {
	for i := range (*best).Faults {
		for range 6 {
			q := (*best).clone()
			f := &q.Faults[i]
			if f.For <= time.Millisecond {
				break
			}
			f.For /= 2
			if !try(q) {
				break
			}
		}
		q := (*best).clone()
		f := &q.Faults[i]
		f.At, f.For = f.At.Round(time.Millisecond), f.For.Round(time.Millisecond)
		try(q)
	}
}
