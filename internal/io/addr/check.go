package addr

import (
	"errors"
	"fmt"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"baton/internal/core/cluster"
	"baton/internal/io/bounded"
)

// Check implements resource.Checker: the interface must be here, or be found by the address's subnet.
func (VIP) Check(spec cluster.ResourceSpec) (hint string, err error) {
	_, hint, err = seek(spec)
	return hint, err
}

// seek finds the interface that an address belongs on, or says what to do.
func seek(spec cluster.ResourceSpec) (i iface, hint string, err error) {
	p, name, err := parse(spec.Fields)
	if err != nil {
		return iface{}, "", err
	}
	r, err := openRoute()
	if err != nil {
		return iface{}, "", err
	}
	defer r.close()
	if name == "" {
		i, err := r.find(p, 0)
		return i, fmt.Sprintf("write vip: { address: %s, interface: NAME }, or interface: { NODE: NAME, … } where nodes call it differently", p), err
	}
	i, err = r.byName(name)
	if errors.Is(err, unix.ENODEV) {
		err = fmt.Errorf("there is no interface %s here; there are %s", name, strings.Join(names(), ", "))
	}
	return i, "write interface: { NODE: NAME, … } where nodes call it differently, or give it here that name as well: ip link property add dev INTERFACE altname NAME", err
}

// Lacks implements resource.Lacker: the interface must be up besides. Whether it has a carrier is told apart
// (WatchLinks).
func (VIP) Lacks(spec cluster.ResourceSpec) error {
	i, _, err := seek(spec)
	switch {
	case err != nil:
		return err
	case !i.up:
		return fmt.Errorf("interface %s is down", i.name)
	case spec.Fields["address"].(netip.Prefix).Addr().Is6() && ipv6Disabled(i.name):
		return fmt.Errorf("IPv6 is disabled on %s (disable_ipv6)", i.name)
	}
	return nil
}

// Doubt implements resource.Doubter: an interface whose own addresses are all in other subnets may be the wrong one. One
// without any is a network of clients alone, and an address without a subnet (/32, /128) is one that routers send here.
func (VIP) Doubt(spec cluster.ResourceSpec) (text, hint string) {
	p, name, err := parse(spec.Fields)
	if err != nil || name == "" || p.IsSingleIP() {
		return "", ""
	}
	r, err := openRoute()
	if err != nil {
		return "", ""
	}
	defer r.close()
	i, err := r.byName(name)
	if err != nil {
		return "", ""
	}
	list, err := r.addresses(familyOf(p.Addr()))
	if err != nil {
		return "", ""
	}
	var subnets []string
	for _, x := range list {
		switch {
		case x.index != i.index || x.ours || x.addr == p.Addr() || x.addr.IsLinkLocalUnicast() && !p.Addr().IsLinkLocalUnicast():
		case x.network.Overlaps(p):
			return "", ""
		case !slices.Contains(subnets, x.network.String()):
			subnets = append(subnets, x.network.String())
		}
	}
	if len(subnets) == 0 {
		return "", ""
	}
	hint = fmt.Sprintf("correct the address or the interface; if %s is on that wire as well, it may stay; if routers send it here, write %s/%d", p.Masked(), p.Addr(), p.Addr().BitLen())
	if home, err := r.find(p, 0); err == nil && home.index != i.index {
		hint = fmt.Sprintf("%s is in that subnet: write interface: %s, or leave it out", home.name, home.name)
	}
	return fmt.Sprintf("%s is in no subnet of interface %s, which has %s: clients there may not reach it", p, i.name, strings.Join(subnets, ", ")), hint
}

// ipv6Disabled tells whether an interface takes no IPv6 addresses.
func ipv6Disabled(name string) bool {
	text, err := bounded.ReadFile(filepath.Join("/proc/sys/net/ipv6/conf", name, "disable_ipv6"), bounded.Small)
	return err == nil && strings.TrimSpace(string(text)) == "1"
}

// names lists the interfaces of this network namespace, with their alternative names.
func names() (out []string) {
	list, err := netlink.LinkList()
	if err != nil {
		return []string{"none that can be listed"}
	}
	for _, l := range list {
		name := l.Attrs().Name
		if alt := l.Attrs().AltNames; len(alt) > 0 {
			name += " (also " + strings.Join(alt, ", ") + ")"
		}
		out = append(out, name)
	}
	return out
}
