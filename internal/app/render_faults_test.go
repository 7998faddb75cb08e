package app

import (
	"bytes"
	"strings"
	"testing"

	"google.golang.org/protobuf/types/known/durationpb"

	batonv1 "baton/api/v1"
)

// What other nodes tell of their links, gates and ways stands under the right name, and where one can't be asked, where to
// look.
func TestFaultsByWhom(t *testing.T) {
	s := &batonv1.StatusResponse{Cluster: "feed", Node: "gamma", Quorum: true, Coordinator: "gamma", Voters: 3, VotersHeard: 3, Links: []string{"lan"}, Timing: &batonv1.Timing{Detect: durationpb.New(900 * ms)},
		Nodes: []*batonv1.Node{
			{Name: "alpha", Role: "member", Heard: true, Fresh: true, LeaseRuns: true, Membership: "votes", Faulty: true, Faults: []*batonv1.LinkFault{
				{Link: "lan", Text: "10.0.0.11 is not an address of this host", Hint: "ip address add", By: "alpha"}, {Link: gateFault, Text: "others took it off", By: "alpha"},
				{Link: writeFault, Text: "the log in /var/lib/baton can't be written: read-only file system", Hint: "mend it", By: "alpha"}}},
			{Name: "beta", Role: "member", Heard: true, Fresh: true, LeaseRuns: true, Membership: "votes", Faulty: true, Faults: []*batonv1.LinkFault{
				{Link: "cross", Text: "packets from alpha are lost", Hint: "compare the MTU", By: "alpha"}, {Link: "lan", Text: "packets from gamma are lost"}}},
			{Name: "gamma", Role: "witness", Heard: true, Fresh: true, Membership: "votes"},
			{Name: "delta", Role: "member", Heard: true, Fresh: true, Membership: "outside", Faults: []*batonv1.LinkFault{
				{Link: twinFault, Text: "two machines run under this name", Hint: "shut one of them down"}, {Link: twinFault, Text: "two machines run under this name", By: "alpha"}}},
		}}
	var b bytes.Buffer
	statusView{palette{}, s}.write(&b)
	for _, want := range []string{"alpha can't use link lan, alpha's gate was taken off, full packets from alpha to beta are lost on cross, full packets to beta are lost on lan, beta has a fault of its links or its gate, two machines run as delta, delta is not let in yet.",
		"\ndelta: two machines run under this name, says gamma.\ndelta: two machines run under this name, says alpha.\n", "\nhint: shut one of them down\n",
		"\nalpha can't use link lan: 10.0.0.11 is not an address of this host.\n", "\nalpha: the log in /var/lib/baton can't be written: read-only file system.\n", "\nalpha's gate: others took it off.\n", "\nbeta on link cross: packets from alpha are lost.\n",
		"\nbeta has a fault of its links, of a way from it to another node, or of its gate, and could not be asked which: baton status there tells.\n", "\nhint: compare the MTU\n"} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("not told: %q\n%s", want, b.String())
		}
	}
}
