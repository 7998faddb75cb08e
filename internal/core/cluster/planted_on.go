//go:build planted

package cluster

// Planted says whether bugs can be planted in the core, for the tests of the simulator.
const Planted = true
