package app

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"

	batonv1 "baton/api/v1"
)

// service says how a group has served so far; empty: it never has.
func (v statusView) service(g *batonv1.Group) string {
	s := g.Service
	if s == nil || !s.First.IsValid() {
		return ""
	}
	var out []string
	if d := s.Down.AsDuration(); d > 0 {
		out = append(out, "down for "+short(d))
	}
	out = append(out, percent(s.Availability)+" available since "+s.First.AsTime().Local().Format("2006-01-02 15:04"))
	total := s.Planned.AsDuration() + s.Unplanned.AsDuration()
	if total == 0 {
		return strings.Join(append(out, "no outage on record"), ", ")
	}
	return strings.Join(append(out, fmt.Sprintf("%s down in all, %s of it planned", exact(total), exact(s.Planned.AsDuration()))), ", ")
}

// exact writes a duration to the millisecond while that tells anything.
func exact(d time.Duration) string {
	if d < 10*time.Second {
		return d.Round(time.Millisecond).String()
	}
	return short(d)
}

// percent writes a share with as many nines as it has, and never rounds it up to all.
func percent(share float64) string {
	if share >= 1 {
		return "100 %"
	}
	digits := 2
	for digits < 6 && 100*(1-share) < math.Pow10(1-digits) {
		digits++
	}
	scale := math.Pow10(digits)
	return strconv.FormatFloat(math.Floor(share*100*scale+1e-4)/scale, 'f', digits, 64) + " %"
}
