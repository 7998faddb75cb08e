package app

import (
	"testing"

	"baton/internal/core/cluster"
	"baton/internal/io/addr"
)

// A name of the file leads to an interface by its index, and the index is what is judged.
func TestInterfacesByIndex(t *testing.T) {
	i := newInterfaces()
	vip := &cluster.ResourceSpec{Front: true, Fields: map[string]any{"interface": "enp1s0"}}
	is := func(what string, want bool) {
		t.Helper()
		if got := i.cutOff(vip); got != want {
			t.Errorf("%s: cut off %v", what, got)
		}
	}
	eth0 := addr.LinkState{Index: 5, Name: "eth0", Up: true, Carrier: true}
	i.take(eth0)
	is("no interface has had the name", false)
	eth0.AltNames = []string{"enp1s0"}
	i.take(eth0)
	is("the altname has come", false)
	eth0.Carrier = false
	i.take(eth0)
	is("its carrier is gone", true)
	eth0.Carrier, eth0.AltNames = true, nil
	i.take(eth0)
	is("it is well, and has lost the name", false)
	eth0.Carrier = false
	i.take(eth0)
	is("it has lost its carrier after the name", true)
	i.take(addr.LinkState{Index: 9, Name: "enp1s0", Up: true, Carrier: true})
	is("another has the name", false)
	i.take(addr.LinkState{Index: 5, Name: "eth0", Gone: true})
	is("the former one has gone", false)
	i.take(addr.LinkState{Index: 9, Name: "lan", Up: true, Carrier: true})
	is("it was renamed and is as well as before", false)
	i.take(addr.LinkState{Index: 9, Name: "lan", Gone: true})
	is("it was deleted", true)
	i.take(addr.LinkState{Index: 12, Name: "enp1s0", Up: true, Carrier: true})
	is("it was made anew", false)
	i.take(addr.LinkState{Index: 12, Name: "enp1s0", Carrier: true})
	is("it was set down", true)
}
