//go:build !planted

package cluster

// Planted says whether bugs can be planted in the core, for the tests of the simulator. It is constant, so
// that the compiler leaves every planted bug out of a binary that is built without the tag `planted`.
const Planted = false
