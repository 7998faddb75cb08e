package lab

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// HostConfig describes a host.
type HostConfig struct {
	Name string // also its hostname
	// Addresses by network. The host has a link for each, named like the network; a network without
	// addresses is a link without.
	Addresses map[string][]netip.Prefix
	// Interfaces are other names for its links, by network. One that is too long for a link's name becomes its
	// alternative name, as of a machine's own.
	Interfaces map[string]string
	// Disk names further directories (absolute) that the host has for itself on disk, besides
	// /var/lib/baton and /etc/baton. They are empty at first and outlive power losses.
	Disk []string
	// Systemd makes systemd its PID 1, and the whole root its own ([Host.Disk] of "/"), but for the machine's
	// /usr, without /usr/local, and for what Show names. A reboot from within boots the host anew.
	Systemd bool
	// Show names files and directories of the machine that a host with systemd sees too, read-only.
	Show []string
	// OnBoot is called at the end of every boot, the first included: what an init system would start.
	OnBoot func(*Host) error
}

// Host is one machine of the lab. Its methods may be called by several goroutines, but those that
// switch it on or off wait for each other.
type Host struct {
	lab    *Lab
	config HostConfig
	number int
	dir    string // its disk and logs, on the machine
	cgroup string // its cgroup, on the machine

	plugged bool // its cables are in; guarded by the lab's mutex

	power sync.Mutex // held while it is switched on or off
	mu    sync.Mutex
	boot  *boot // nil: off
}

// boot is one time between power on and power off.
type boot struct {
	id       string
	init     *exec.Cmd     // PID 1; everything in the host dies with it
	lifeline *os.File      // PID 1 ends when this is closed, be it by our own end
	gone     chan struct{} // closed when PID 1 has been waited for
	spaces   []space
	cgroup   *os.File
	off      chan struct{} // closed just before the power goes
	running  sync.WaitGroup

	mu       sync.Mutex
	services []*Service
}

// space is one namespace that a process joins to be in the host.
type space struct {
	file *os.File
	kind int
}

// The namespaces by their names in /proc/PID/ns, in the order of joining: mount last, since paths mean
// something else from then on.
var spaceKinds = []struct {
	name string
	kind int
}{
	{"net", unix.CLONE_NEWNET}, {"uts", unix.CLONE_NEWUTS}, {"ipc", unix.CLONE_NEWIPC},
	{"pid", unix.CLONE_NEWPID}, {"mnt", unix.CLONE_NEWNS},
}

// Name returns the host's name.
func (h *Host) Name() string { return h.config.Name }

// Disk returns where, on the machine, one of the host's own directories lies, such as /etc/baton.
// It may be used while the host is off, too.
func (h *Host) Disk(path string) string { return filepath.Join(h.dir, "disk", path) }

// CgroupDir returns the host's cgroup directory on the machine. In the host it is the root.
func (h *Host) CgroupDir() string { return h.cgroup }

// BootID returns the boot id, as the host's /proc/sys/kernel/random/boot_id shows it; "" when off.
func (h *Host) BootID() string {
	if b := h.booted(); b != nil {
		return b.id
	}
	return ""
}

// On says whether the host has power.
func (h *Host) On() bool { return h.booted() != nil }

func (h *Host) booted() *boot {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.boot
}

// Boot switches the host on: new namespaces, empty /run, new boot id; the same hostname, disk, MAC and
// configured addresses. It returns when the links are up. Cuts that are in force stay so.
func (h *Host) Boot() error {
	h.power.Lock()
	defer h.power.Unlock()
	if h.On() {
		return fmt.Errorf("boot %s: it is on", h.config.Name)
	}
	h.lab.mu.Lock()
	closed := h.lab.closed
	h.lab.mu.Unlock()
	if closed {
		return fmt.Errorf("boot %s: the lab is closed", h.config.Name)
	}
	b := &boot{id: newUUID(), gone: make(chan struct{}), off: make(chan struct{})}
	err := h.powerOn(b)
	if err == nil {
		err = h.plug(b)
	}
	if err == nil && h.config.Systemd {
		err = h.beginSystemd(b)
	}
	if err != nil {
		return errors.Join(fmt.Errorf("boot %s: %w", h.config.Name, err), h.powerOff(b))
	}
	h.mu.Lock()
	h.boot = b
	h.mu.Unlock()
	if h.config.OnBoot != nil {
		if err := h.config.OnBoot(h); err != nil {
			return fmt.Errorf("boot %s: after the boot: %w", h.config.Name, err)
		}
	}
	return nil
}

// powerOn starts PID 1 and waits until it has set the host up.
func (h *Host) powerOn(b *boot) error {
	setup := setup{
		Hostname: h.config.Name,
		BootID:   filepath.Join(h.dir, "boot_id"),
		Cgroup:   h.lab.mount,
		Binds:    map[string]string{},
	}
	for _, path := range append([]string{"/var/lib/baton", "/etc/baton"}, h.config.Disk...) {
		setup.Binds[path] = h.Disk(path)
		if err := os.MkdirAll(h.Disk(path), 0o755); err != nil {
			return err
		}
	}
	if err := os.MkdirAll(filepath.Join(h.dir, "log"), 0o755); err != nil {
		return err
	}
	if h.config.Systemd {
		setup.Disk, setup.Root, setup.Show = h.Disk("/"), filepath.Join(h.dir, "root"), h.config.Show
		if err := errors.Join(os.MkdirAll(setup.Root, 0o755), h.makeRoot()); err != nil {
			return err
		}
	}
	if err := os.WriteFile(setup.BootID, []byte(b.id+"\n"), 0o444); err != nil {
		return err
	}
	if err := os.Mkdir(h.cgroup, 0o755); err != nil && !errors.Is(err, os.ErrExist) {
		return err
	}
	var err error
	if b.cgroup, err = os.Open(h.cgroup); err != nil {
		return err
	}
	if err := h.startInit(b, setup); err != nil {
		return fmt.Errorf("start its PID 1: %w", err)
	}
	for _, s := range spaceKinds {
		f, err := os.Open(fmt.Sprintf("/proc/%d/ns/%s", b.init.Process.Pid, s.name))
		if err != nil {
			return err
		}
		b.spaces = append(b.spaces, space{f, s.kind})
	}
	return nil
}

// startInit runs this program again as PID 1 of new namespaces (see MaybeInit).
func (h *Host) startInit(b *boot, s setup) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	console, err := os.OpenFile(filepath.Join(h.dir, "log", "console"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	defer console.Close()
	orders, lifeline, err := os.Pipe()
	if err != nil {
		return err
	}
	defer orders.Close()
	b.lifeline = lifeline
	report, reported, err := os.Pipe()
	if err != nil {
		return err
	}
	defer report.Close()

	init := exec.Command(self)
	init.Env = append(os.Environ(), modeVariable+"="+modeInit)
	init.Stdout, init.Stderr = console, console
	init.ExtraFiles = []*os.File{orders, reported}
	init.SysProcAttr = &syscall.SysProcAttr{
		Setsid: true, // a Ctrl-C at our terminal is ours to handle
		Cloneflags: unix.CLONE_NEWNET | unix.CLONE_NEWNS | unix.CLONE_NEWPID | unix.CLONE_NEWUTS |
			unix.CLONE_NEWIPC,
		// Unshared, not cloned: made once in its cgroup, so that the namespace's root is that cgroup.
		Unshareflags: unix.CLONE_NEWCGROUP,
		UseCgroupFD:  true,
		CgroupFD:     int(b.cgroup.Fd()),
	}
	started := make(chan error)
	go func() {
		runtime.LockOSThread() // what the kernel calls the parent is the thread that forks (see dieWithLab)
		err := init.Start()
		started <- err
		if err == nil {
			init.Wait()
			close(b.gone)
		}
		runtime.UnlockOSThread()
	}()
	err = <-started
	reported.Close()
	if err != nil {
		return err
	}
	b.init = init
	if err := json.NewEncoder(lifeline).Encode(s); err != nil {
		return fmt.Errorf("tell it what to do: %w", err)
	}
	answer, err := io.ReadAll(report)
	if err != nil {
		return err
	}
	if string(answer) != initReady {
		return fmt.Errorf("it says %q; its console is %s", answer, console.Name())
	}
	return nil
}

// plug connects the host's links to the switch and gives them their addresses.
func (h *Host) plug(b *boot) error {
	inside, err := netlink.NewHandleAt(netns.NsHandle(b.spaces[0].file.Fd()), unix.NETLINK_ROUTE)
	if err != nil {
		return fmt.Errorf("open netlink in the host: %w", err)
	}
	defer inside.Close()
	h.lab.mu.Lock()
	defer h.lab.mu.Unlock()
	h.plugged = true
	for i, network := range h.lab.order {
		addresses, on := h.config.Addresses[network]
		if !on {
			continue
		}
		if err := h.plugOne(b, inside, network, byte(i), addresses); err != nil {
			return fmt.Errorf("link to network %s: %w", network, err)
		}
	}
	return nil
}

func (h *Host) plugOne(b *boot, inside *netlink.Handle, network string, n byte, addresses []netip.Prefix) error {
	inner, alternative := cmp.Or(h.config.Interfaces[network], network), ""
	if len(inner) > maxLinkName {
		inner, alternative = network, inner
	}
	port := &netlink.Veth{
		LinkAttrs: netlink.LinkAttrs{
			Name: portName(h.config.Name, network), TxQLen: -1,
			MasterIndex: h.lab.networks[network].Index,
		},
		PeerName:         inner,
		PeerHardwareAddr: net.HardwareAddr{0x02, 0xba, 0x70, n, byte(h.number >> 8), byte(h.number)},
		PeerNamespace:    netlink.NsPid(b.init.Process.Pid),
	}
	if err := h.lab.links.LinkAdd(port); err != nil {
		return err
	}
	link, err := inside.LinkByName(inner)
	if err == nil && alternative != "" {
		err = inside.LinkAddAltName(link, alternative)
	}
	if err != nil {
		return err
	}
	for _, a := range addresses {
		address := &netlink.Addr{
			IPNet: &net.IPNet{IP: a.Addr().AsSlice(), Mask: net.CIDRMask(a.Bits(), a.Addr().BitLen())},
			Flags: unix.IFA_F_NODAD, // usable at once; MAC and address are known to be this host's alone
		}
		if err := inside.AddrAdd(link, address); err != nil {
			return fmt.Errorf("add address %s: %w", a, err)
		}
	}
	if err := inside.LinkSetUp(link); err != nil {
		return err
	}
	return h.lab.setCarrier(h.config.Name, network)
}

// PowerOff is a power loss. In one instant nothing of the host reaches the switch any more; then all
// processes are killed at once. It returns when they are gone. The disk stays as the last write left it,
// synced or not (see the package's comment). When the host is off, it does nothing.
func (h *Host) PowerOff() error {
	h.power.Lock()
	defer h.power.Unlock()
	h.mu.Lock()
	b := h.boot
	h.boot = nil
	h.mu.Unlock()
	if b == nil {
		return nil
	}
	return h.powerOff(b)
}

// powerOff ends a boot, or what there is of one that failed.
func (h *Host) powerOff(b *boot) error {
	b.mu.Lock()
	close(b.off)
	b.mu.Unlock()
	// The link goes first: the kernel would send FIN or RST for the sockets of killed processes. One
	// rule for all links, since setting links down takes the kernel some milliseconds each.
	errs := []error{h.darken(true)}
	if err := os.WriteFile(filepath.Join(h.cgroup, "cgroup.kill"), []byte("1"), 0); !errors.Is(err, os.ErrNotExist) {
		errs = append(errs, err)
	}
	if b.init != nil {
		b.init.Process.Kill()
	}
	if b.lifeline != nil {
		b.lifeline.Close()
	}
	errs = append(errs, h.unplug(), b.end())
	if b.cgroup != nil {
		b.cgroup.Close()
	}
	for _, s := range b.spaces {
		s.file.Close()
	}
	errs = append(errs, removeCgroup(h.cgroup), h.darken(false))
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("power off %s: %w", h.config.Name, err)
	}
	return nil
}

// end waits until every process of the boot is gone.
func (b *boot) end() error {
	all := make(chan struct{})
	go func() {
		if b.init != nil {
			<-b.gone
		}
		b.running.Wait()
		close(all)
	}()
	select {
	case <-all:
		return nil
	case <-time.After(endWait):
		return fmt.Errorf("killed processes are still there after %v", endWait)
	}
}

// darken drops, or no longer drops, all frames from and to the host.
func (h *Host) darken(dark bool) error {
	h.lab.mu.Lock()
	defer h.lab.mu.Unlock()
	if h.lab.filter == nil {
		return nil
	}
	if dark {
		h.lab.faults.dark[h.config.Name] = true
	} else {
		delete(h.lab.faults.dark, h.config.Name)
	}
	return h.lab.apply()
}

// unplug removes the host's links, both ends.
func (h *Host) unplug() error {
	h.lab.mu.Lock()
	defer h.lab.mu.Unlock()
	h.plugged = false
	var errs []error
	for network := range h.config.Addresses {
		link, err := h.lab.links.LinkByName(portName(h.config.Name, network))
		if err == nil {
			err = h.lab.links.LinkDel(link)
		}
		var missing netlink.LinkNotFoundError
		if err != nil && !errors.As(err, &missing) && !errors.Is(err, unix.ENODEV) {
			errs = append(errs, fmt.Errorf("remove its port on %s: %w", network, err))
		}
	}
	return errors.Join(errs...)
}

// Reboot is a clean one: the supervised services are stopped, the last started first, with SIGTERM;
// what has not ended when ctx does is killed. Then the host goes off and boots.
func (h *Host) Reboot(ctx context.Context) error {
	b := h.booted()
	if b == nil {
		return fmt.Errorf("reboot %s: it is off", h.config.Name)
	}
	b.mu.Lock()
	services := slices.Clone(b.services)
	b.mu.Unlock()
	for _, s := range slices.Backward(services) {
		if err := s.Stop(ctx); err != nil && ctx.Err() == nil {
			return fmt.Errorf("reboot %s: %w", h.config.Name, err)
		}
	}
	if err := h.PowerOff(); err != nil {
		return err
	}
	return h.Boot()
}

// Freeze stops all processes of the host at once, as a hypervisor that pauses the machine does; the
// kernel's network goes on answering ARP and ping. It returns when they have stopped.
func (h *Host) Freeze() error { return h.freeze("1") }

// Thaw lets them go on.
func (h *Host) Thaw() error { return h.freeze("0") }

func (h *Host) freeze(state string) error {
	fail := func(err error) error {
		return fmt.Errorf("write %s to cgroup.freeze of %s: %w", state, h.config.Name, err)
	}
	if err := os.WriteFile(filepath.Join(h.cgroup, "cgroup.freeze"), []byte(state), 0); err != nil {
		return fail(err)
	}
	for deadline := time.Now().Add(endWait); ; time.Sleep(time.Millisecond) {
		events, err := os.ReadFile(filepath.Join(h.cgroup, "cgroup.events"))
		if err != nil {
			return fail(err)
		}
		if strings.Contains(string(events), "frozen "+state) {
			return nil
		}
		if time.Now().After(deadline) {
			return fail(fmt.Errorf("cgroup.events says %q after %v", events, endWait))
		}
	}
}

// Do runs f on a thread of its own that has entered the host's network namespace. Sockets that f itself
// opens belong to the host for good; goroutines that f starts are not in the host.
func (h *Host) Do(f func() error) error {
	b := h.booted()
	if b == nil {
		return fmt.Errorf("enter %s: it is off", h.config.Name)
	}
	return onOwnThread(func() error {
		if err := unix.Setns(int(b.spaces[0].file.Fd()), unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("enter the network of %s: %w", h.config.Name, err)
		}
		return f()
	})
}

// DialContext connects from the host. The address must be literal: a name's lookup would not be made
// from the host.
func (h *Host) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	if _, err := netip.ParseAddrPort(address); err != nil && !strings.HasPrefix(network, "unix") {
		return nil, fmt.Errorf("dial %s from %s: the address must be literal: %w", address, h.config.Name, err)
	}
	var c net.Conn
	err := h.Do(func() (err error) {
		c, err = new(net.Dialer).DialContext(ctx, network, address)
		return err
	})
	return c, err
}

// ListenPacket opens a packet socket in the host.
func (h *Host) ListenPacket(ctx context.Context, network, address string) (net.PacketConn, error) {
	var c net.PacketConn
	err := h.Do(func() (err error) {
		c, err = new(net.ListenConfig).ListenPacket(ctx, network, address)
		return err
	})
	return c, err
}

// Networks returns the names of the host's links, sorted.
func (h *Host) Networks() []string { return slices.Sorted(maps.Keys(h.config.Addresses)) }

// newUUID returns a random (version 4) UUID, as the kernel makes a boot id.
func newUUID() string {
	var b [16]byte
	rand.Read(b[:])
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[0:4], b[4:6], b[6:8], b[8:10], b[10:16])
}
