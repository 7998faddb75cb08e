package wire

// Probe finds out which sizes of packets a path carries: one that is small and one that fills a datagram go over each
// link, and each is answered over the same one by a small one. It says nothing of leases, and the core never sees it.
type Probe struct {
	N      uint64 // tells its sender which one was answered
	Answer bool
	Full   bool   // it fills a datagram, or answers one that did
	Pad    []byte // that makes it so large
}

func (*Probe) isMessage() {}

// probeFields is what stands beside a probe's padding: version, kind, number, flags and the padding's length.
const probeFields = 2 + 8 + 1 + 2

// FullProbe returns a probe that fills a datagram of a node whose name has so many bytes: a packet of MaxPacket.
func FullProbe(n uint64, name int) *Probe {
	return &Probe{N: n, Full: true, Pad: make([]byte, MaxDatagram-probeFields+MaxName-name)}
}
