package lab

import (
	"encoding/binary"
	"fmt"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// Direction is which way a one-way cut drops, as seen from the host.
type Direction uint8

const (
	// Out drops what the host sends: it hears, but is not heard.
	Out Direction = iota
	// In drops what the host would receive: it is heard, but hears nothing.
	In
)

// lossScale makes loss precise to a hundredth of a percent.
const lossScale = 10_000

// drop is one rule in the switch: frames that match all of it are dropped. Zero values match all.
type drop struct {
	network  string
	from, to string // hosts
	udp      uint16 // destination port, IPv4 and IPv6
	chance   uint32 // of lossScale; 0: always
}

// faults are the faults in force. They belong to cables and switch, so they outlive a host's boot.
// The lab's mutex guards them.
type faults struct {
	table *nftables.Table
	chain *nftables.Chain
	drops []drop
	cut   map[string]bool // ports without carrier
	dark  map[string]bool // hosts without power: nothing of theirs passes
}

// setUp makes an empty forward chain in the switch's bridges.
func (f *faults) setUp(c *nftables.Conn) error {
	f.cut, f.dark = map[string]bool{}, map[string]bool{}
	f.table = c.AddTable(&nftables.Table{Family: nftables.TableFamilyBridge, Name: "lab"})
	f.chain = c.AddChain(&nftables.Chain{
		Name: "forward", Table: f.table, Type: nftables.ChainTypeFilter,
		Hooknum: nftables.ChainHookForward, Priority: nftables.ChainPriorityFilter,
	})
	if err := c.Flush(); err != nil {
		return fmt.Errorf("make the switch's filter: %w", err)
	}
	return nil
}

// apply replaces the rules in the switch by those in force, in one atomic transaction.
func (l *Lab) apply() error {
	f := &l.faults
	l.filter.FlushChain(f.chain)
	add := func(e []expr.Any) {
		e = append(e, &expr.Verdict{Kind: expr.VerdictDrop})
		l.filter.AddRule(&nftables.Rule{Table: f.table, Chain: f.chain, Exprs: e})
	}
	for host := range f.dark {
		for network := range l.hosts[host].config.Addresses {
			add(matchLink(expr.MetaKeyIIFNAME, portName(host, network)))
			add(matchLink(expr.MetaKeyOIFNAME, portName(host, network)))
		}
	}
	for _, d := range f.drops {
		add(d.match())
	}
	if err := l.filter.Flush(); err != nil {
		return fmt.Errorf("set %d rules in the switch: %w", len(f.drops), err)
	}
	return nil
}

// match returns the expressions of a rule, as `nft --debug=netlink` shows them.
func (d drop) match() []expr.Any {
	var e []expr.Any
	if d.from != "" {
		e = append(e, matchLink(expr.MetaKeyIIFNAME, portName(d.from, d.network))...)
	}
	if d.to != "" {
		e = append(e, matchLink(expr.MetaKeyOIFNAME, portName(d.to, d.network))...)
	}
	if d.udp != 0 {
		e = append(e,
			&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: 1},
			&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{unix.IPPROTO_UDP}},
			&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseTransportHeader, Offset: 2, Len: 2},
			&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: binaryutil.BigEndian.PutUint16(d.udp)})
	}
	if d.chance != 0 {
		e = append(e,
			&expr.Numgen{Register: 1, Modulus: lossScale, Type: unix.NFT_NG_RANDOM},
			// The comparison is one of bytes, so the number must be big-endian.
			&expr.Byteorder{SourceRegister: 1, DestRegister: 1, Op: expr.ByteorderHton, Len: 4, Size: 4},
			&expr.Cmp{Op: expr.CmpOpLt, Register: 1, Data: binary.BigEndian.AppendUint32(nil, d.chance)})
	}
	return e
}

func matchLink(key expr.MetaKey, name string) []expr.Any {
	padded := make([]byte, unix.IFNAMSIZ)
	copy(padded, name)
	return []expr.Any{
		&expr.Meta{Key: key, Register: 1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: padded},
	}
}

// CutCarrier pulls the host's cable: both ends lose carrier. An empty network means all of the host's.
func (l *Lab) CutCarrier(host, network string) error {
	return l.onPorts("cut carrier", host, network, func(network string) error {
		l.faults.cut[portName(host, network)] = true
		return l.setCarrier(host, network)
	})
}

// CutSilent drops all frames from and to the host in the switch; its carrier stays up. An empty
// network means all of the host's.
func (l *Lab) CutSilent(host, network string) error {
	return l.addDrops("cut silently", host, network, func(network string) []drop {
		return []drop{{network: network, from: host}, {network: network, to: host}}
	})
}

// CutOneWay is CutSilent in one direction only.
func (l *Lab) CutOneWay(host, network string, direction Direction) error {
	return l.addDrops("cut one way", host, network, func(network string) []drop {
		if direction == Out {
			return []drop{{network: network, from: host}}
		}
		return []drop{{network: network, to: host}}
	})
}

// CutBetween silently drops what two hosts send to each other; both still reach all others. An empty
// network means all that the first is on.
func (l *Lab) CutBetween(a, b, network string) error {
	return l.addDrops("cut off "+b+" from", a, network, func(network string) []drop {
		return []drop{{network: network, from: a, to: b}, {network: network, from: b, to: a}}
	}, b)
}

// CutFromTo is CutBetween in one direction only: to no longer hears from.
func (l *Lab) CutFromTo(from, to, network string) error {
	return l.addDrops("cut off "+to+" from", from, network, func(network string) []drop {
		return []drop{{network: network, from: from, to: to}}
	}, to)
}

// Loss drops each frame on every network with the given chance, 0 to 100 percent, replacing what Loss
// and LossUDP set before. 0 ends it.
func (l *Lab) Loss(percent float64) error { return l.loss(percent, 0) }

// LossUDP is Loss for datagrams to one UDP port only: loss of all heartbeats, for example.
func (l *Lab) LossUDP(port uint16, percent float64) error { return l.loss(percent, port) }

func (l *Lab) loss(percent float64, udp uint16) error {
	if percent < 0 || percent > 100 {
		return fmt.Errorf("set loss: %v percent is not between 0 and 100", percent)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	kept := l.faults.drops[:0:0]
	for _, d := range l.faults.drops {
		if d.chance == 0 {
			kept = append(kept, d)
		}
	}
	if chance := uint32(percent * lossScale / 100); chance > 0 {
		kept = append(kept, drop{udp: udp, chance: chance})
	}
	l.faults.drops = kept
	return l.apply()
}

// Heal ends every cut of the host's on a network ("": on all), also those between it and another.
// Loss goes on.
func (l *Lab) Heal(host, network string) error {
	return l.onPorts("heal", host, network, func(network string) error {
		delete(l.faults.cut, portName(host, network))
		kept := l.faults.drops[:0:0]
		for _, d := range l.faults.drops {
			if d.network != network || d.from != host && d.to != host {
				kept = append(kept, d)
			}
		}
		l.faults.drops = kept
		if err := l.apply(); err != nil {
			return err
		}
		return l.setCarrier(host, network)
	})
}

// HealAll ends all cuts and all loss. It powers and thaws nothing.
func (l *Lab) HealAll() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.faults.drops = nil
	clear(l.faults.cut)
	if err := l.apply(); err != nil {
		return err
	}
	for _, h := range l.hosts {
		for network := range h.config.Addresses {
			if err := l.setCarrier(h.config.Name, network); err != nil {
				return err
			}
		}
	}
	return nil
}

// addDrops puts rules in force for one or all networks that the host is on, all at once.
func (l *Lab) addDrops(what, host, network string, rules func(network string) []drop, others ...string) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	networks, err := l.portsOf(what, host, network)
	if err != nil {
		return err
	}
	for _, other := range others {
		if l.hosts[other] == nil {
			return fmt.Errorf("%s %s: the lab has no host %q", what, host, other)
		}
	}
	for _, n := range networks {
		l.faults.drops = append(l.faults.drops, rules(n)...)
	}
	return l.apply()
}

// onPorts calls act, under the lab's mutex, for one or all networks that the host is on.
func (l *Lab) onPorts(what, host, network string, act func(network string) error) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	networks, err := l.portsOf(what, host, network)
	if err != nil {
		return err
	}
	for _, n := range networks {
		if err := act(n); err != nil {
			return fmt.Errorf("%s %s on %s: %w", what, host, n, err)
		}
	}
	return nil
}

// portsOf returns the networks that a host is on, in the lab's order; just one where it is named.
func (l *Lab) portsOf(what, host, network string) ([]string, error) {
	h := l.hosts[host]
	if h == nil || l.closed {
		return nil, fmt.Errorf("%s %s: the lab is closed or has no such host", what, host)
	}
	var found []string
	for _, n := range l.order {
		if _, on := h.config.Addresses[n]; on && (network == "" || network == n) {
			found = append(found, n)
		}
	}
	if len(found) == 0 {
		return nil, fmt.Errorf("%s %s: the host is not on network %q", what, host, network)
	}
	return found, nil
}

// setCarrier brings the switch's end of a cable up or down, as the faults say, if it is plugged in.
func (l *Lab) setCarrier(host, network string) error {
	if !l.hosts[host].plugged {
		return nil
	}
	port := portName(host, network)
	link, err := l.links.LinkByName(port)
	if err != nil {
		return fmt.Errorf("find port %s in the switch: %w", port, err)
	}
	if l.faults.cut[port] {
		return l.links.LinkSetDown(link)
	}
	return l.links.LinkSetUp(link)
}
