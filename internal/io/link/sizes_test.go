package link

import (
	"testing"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"baton/internal/core/wire"
)

// dropLarge has the namespace drop packets above a size that go to an address, and returns what ends that.
func dropLarge(t *testing.T, to [4]byte, bytes uint32) (end func()) {
	t.Helper()
	c := &nftables.Conn{}
	table := c.AddTable(&nftables.Table{Name: "narrow", Family: nftables.TableFamilyIPv4})
	chain := c.AddChain(&nftables.Chain{Name: "in", Table: table, Type: nftables.ChainTypeFilter, Hooknum: nftables.ChainHookInput, Priority: nftables.ChainPriorityFilter})
	c.AddRule(&nftables.Rule{Table: table, Chain: chain, Exprs: []expr.Any{
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseNetworkHeader, Offset: 16, Len: 4},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: to[:]},
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseNetworkHeader, Offset: 2, Len: 2},
		&expr.Cmp{Op: expr.CmpOpGt, Register: 1, Data: []byte{byte(bytes >> 8), byte(bytes)}},
		&expr.Verdict{Kind: expr.VerdictDrop},
	}})
	if err := c.Flush(); err != nil {
		t.Skipf("no nftables here: %v", err)
	}
	return func() {
		c.DelTable(table)
		if err := c.Flush(); err != nil {
			t.Fatal(err)
		}
	}
}

// A path on which full packets are lost, and small ones not, is told by who sends them; one that is dead is not.
func TestSizesThatArrive(t *testing.T) {
	if unix.Geteuid() != 0 {
		t.Skip("needs root")
	}
	loud := func(c *Config) { c.Quiet = false }
	a, b := newNode(t, "alpha", 1, loud), newNode(t, "beta", 2, loud) // gamma is not there
	eventually(t, "both sizes arrive", func() bool {
		a.sending.Lock()
		defer a.sending.Unlock()
		s := a.udp[0].sizes["beta"]
		return s != nil && s.full && s.late == 0
	})
	end := dropLarge(t, [4]byte{127, 0, 2, 2}, 28+wire.MaxPacket-1) // cross, to beta
	eventually(t, "alpha tells", func() bool { n := a.Narrow(); return len(n) == 1 && n[0] == Narrow{"cross", "beta"} })
	if n := b.Narrow(); len(n) != 0 {
		t.Errorf("beta, whose packets arrive, tells of %v", n)
	}
	end()
	eventually(t, "it is well again", func() bool { return len(a.Narrow()) == 0 })
	end = dropLarge(t, [4]byte{127, 0, 2, 2}, 28+wire.MaxPacket) // the largest packet passes
	defer end()
	a.mustStayWide(t)
	a.nothing(t)
	b.nothing(t)
}

// mustStayWide waits for some more trials.
func (n *node) mustStayWide(t *testing.T) {
	t.Helper()
	n.sending.Lock()
	before := n.udp[1].sizes["beta"].n
	n.sending.Unlock()
	eventually(t, "another trial", func() bool {
		n.sending.Lock()
		defer n.sending.Unlock()
		s := n.udp[1].sizes["beta"]
		return s.n > before && s.full
	})
	if x := n.Narrow(); len(x) != 0 {
		t.Errorf("told of %v", x)
	}
}
