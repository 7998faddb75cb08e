package addr

import (
	"errors"
	"fmt"
	"net"
	"strings"

	"golang.org/x/sys/unix"

	"baton/internal/core/cluster"
)

// Check implements resource.Checker: the interface must be here, or be found by the address's subnet.
func (VIP) Check(spec cluster.ResourceSpec) (hint string, err error) {
	p, name, err := parse(spec.Fields)
	if err != nil {
		return "", err
	}
	r, err := openRoute()
	if err != nil {
		return "", err
	}
	defer r.close()
	if name == "" {
		_, err := r.find(p.Addr())
		return fmt.Sprintf("write vip: { address: %s, interface: NAME }; the name is the same on every node", p), err
	}
	_, err = r.byName(name)
	if errors.Is(err, unix.ENODEV) {
		err = fmt.Errorf("there is no interface %s here; there are %s", name, strings.Join(names(), ", "))
	}
	return "name an interface that every node of the group has, or rename this host's", err
}

// names lists the interfaces of this network namespace.
func names() (out []string) {
	list, err := net.Interfaces()
	if err != nil {
		return []string{"none that can be listed"}
	}
	for _, i := range list {
		out = append(out, i.Name)
	}
	return out
}
