package app

import (
	"crypto/rand"
	"encoding/binary"
	"time"

	"baton/internal/core/cluster"
	"baton/internal/core/wire"
	"baton/internal/io/bounded"
	"baton/internal/io/identity"
	"baton/internal/io/link"
)

// How long a check looks for answers of other agents, where this node's own does not run.
const (
	sizesTimes    = 3
	sizesPatience = 150 * time.Millisecond
)

// checkSizes tells on which ways to other nodes full packets are lost: by the agent that runs, or else by its own trial,
// which the agents of other nodes answer.
func checkSizes(u *checkup, spec *cluster.Spec, self *cluster.NodeSpec, running *runningAgent) {
	const name = "packet sizes"
	bytes := wire.MaxPacket + wire.MaxHeaders
	lost := false
	if running != nil {
		for _, w := range running.narrow {
			lost = true
			u.add("link "+w.Link, warning, w.Hint, "to %s: %s", w.to, w.Text)
		}
		if !lost {
			u.add(name, pass, "", "the agent that runs has found no way on which packets of %d bytes are lost and small ones arrive", bytes)
		}
		return
	}
	answers := 0
	for _, t := range trySizes(spec, self) {
		if !t.Small {
			continue
		}
		if answers++; !t.Full {
			lost = true
			u.add("link "+t.Link, warning, narrowHint(t.Narrow), "to %s: %s", t.Peer, narrowText(self.ID))
		}
	}
	switch {
	case answers == 0:
		u.add(name, pass, "", "not tried: no other node's agent answers")
	case !lost:
		u.add(name, pass, "", "packets of %d bytes arrive wherever small ones do", bytes)
	}
}

// trySizes tries both sizes in this node's name. Nil: its key or ports can't be used, which other checks tell.
func trySizes(spec *cluster.Spec, self *cluster.NodeSpec) []link.Tried {
	text, err := bounded.ReadFile(spec.KeyFile, bounded.KeyFile)
	if err != nil {
		return nil
	}
	keys, err := wire.ParseKeys(string(text))
	if err != nil {
		return nil
	}
	id, err := identity.New(self.ID, keys.All())
	if err != nil {
		return nil
	}
	var run [8]byte // of its own: no run of the agent ever has it
	_, _ = rand.Read(run[:])
	sealer, err := wire.NewSealer(keys.First, self.ID, cluster.RunID(binary.LittleEndian.Uint64(run[:])|1))
	if err != nil {
		return nil
	}
	links, err := link.Open(link.Config{Keys: keys.All(), Identity: id, Sealer: sealer, Links: spec.Links, Quiet: true,
		Handler: func(cluster.NodeID, cluster.RunID, int, wire.Message) {}}) // what agents say to this node's is nobody's here
	if err != nil {
		return nil
	}
	defer links.Close()
	return links.Try(sizesTimes, sizesPatience)
}
