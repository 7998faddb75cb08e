package addr

import (
	"errors"
	"fmt"
	"net/netip"
	"path/filepath"
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
