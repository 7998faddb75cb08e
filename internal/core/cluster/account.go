package cluster

import "time"

// CauseMax bounds Account.Cause, in bytes: it goes with heartbeats.
const CauseMax = 96

// Account is how a group's clients were served by one placement on the sender, by the sender's own clock. Of a boot
// that is over nothing is told: the clock began anew. It serves the record of outages only.
type Account struct {
	Group GroupID
	Epoch Epoch
	Up    bool // they are served now
	// First and Began bound when they first were.
	First, Began Instant
	// From and To bound when they last were; 0 while they are served. As long as it is not Over they may be again, and
	// To may be later.
	From, To Instant
	Over     bool // they never will be again under Epoch
	Ordered  bool // somebody ordered what took the service away then
	Late     bool // it may have ended before From: nobody noticed at once
	// Cause is what last took the service away where nobody ordered it: "app: exited with status 1"; CauseMax bytes at
	// most. Empty: nothing has, or it is not known.
	Cause string
	// What the gaps between Began and now add up to that have ended, those that somebody ordered apart.
	OrderedGaps, OtherGaps Gaps
}

// Gaps is what some outages add up to.
type Gaps struct {
	Most, Least time.Duration // at the most, and at the least
	Late        bool          // at the most it was more: one began before it was noticed
}
