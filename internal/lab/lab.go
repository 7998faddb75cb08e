package lab

import (
	"errors"
	"fmt"
	"hash/fnv"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/nftables"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

const (
	defaultDir = "/var/tmp/baton-lab"
	idPrefix   = "baton-lab-"
	// maxLinkName is the longest name that the kernel takes for a link (IFNAMSIZ less its zero byte).
	maxLinkName = 15
	// endWait is how long Close and PowerOff wait for killed processes and their cgroups to be gone.
	endWait = 10 * time.Second
	// lockTries is how often the labs' directory may vanish while it is made and locked.
	lockTries = 100
)

// Options say what a lab is made of. The zero value is one network, "lan".
type Options struct {
	Networks []string // link networks, each a bridge of its own; default "lan"
	// Dir holds the hosts' disks, logs and the labs' locks; default /var/tmp/baton-lab. It should be on a
	// real disk: a tmpfs makes fsync free.
	Dir string
	// Keep leaves the lab's directory (disks and logs) in place on Close, until the next Sweep.
	Keep bool
}

// Lab is a set of hosts on common networks. Its methods may be called by several goroutines.
type Lab struct {
	id     string
	dir    string // this lab's own
	keep   bool
	lock   *os.File // held while the lab lives: what Sweep looks at
	cgroup string   // this lab's cgroup directory
	mount  string   // where cgroup2 is mounted

	switchNS netns.NsHandle
	links    *netlink.Handle // in the switch
	networks map[string]*netlink.Bridge
	order    []string

	mu     sync.Mutex
	hosts  map[string]*Host
	faults faults
	filter *nftables.Conn // in the switch
	closed bool
}

var labs atomic.Int64 // numbers this process's labs, so that equal names don't collide

// New makes a lab without hosts. It needs root. Several labs, of one program or of several, don't
// disturb each other. Close must be called when done; see also Sweep.
func New(name string, options Options) (*Lab, error) {
	if len(options.Networks) == 0 {
		options.Networks = []string{"lan"}
	}
	if options.Dir == "" {
		options.Dir = defaultDir
	}
	mount, err := cgroupMount()
	if err != nil {
		return nil, err
	}
	l := &Lab{
		keep: options.Keep, mount: mount, order: options.Networks,
		networks: map[string]*netlink.Bridge{}, hosts: map[string]*Host{},
		switchNS: netns.None(),
	}
	l.id = fmt.Sprintf("%s%d-%d-%s", idPrefix, os.Getpid(), labs.Add(1), plainName(name))
	l.dir = filepath.Join(options.Dir, l.id)
	l.cgroup = filepath.Join(mount, l.id)
	if err := l.build(options.Dir); err != nil {
		return nil, errors.Join(fmt.Errorf("make lab %s: %w", l.id, err), l.Close())
	}
	return l, nil
}

func (l *Lab) build(base string) error {
	if err := Sweep(base); err != nil {
		return err
	}
	if err := l.claim(base); err != nil {
		return err
	}
	if err := os.Mkdir(l.cgroup, 0o755); err != nil {
		return err
	}
	err := onOwnThread(func() error {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("make the switch's network namespace: %w", err)
		}
		var err error
		l.switchNS, err = netns.Get()
		return err
	})
	if err != nil {
		return err
	}
	if l.links, err = netlink.NewHandleAt(l.switchNS, unix.NETLINK_ROUTE); err != nil {
		return fmt.Errorf("open netlink in the switch: %w", err)
	}
	for i, network := range l.order {
		if err := l.addNetwork(i, network); err != nil {
			return fmt.Errorf("make network %s: %w", network, err)
		}
	}
	l.filter, err = nftables.New(nftables.WithNetNSFd(int(l.switchNS)), nftables.AsLasting())
	if err != nil {
		return fmt.Errorf("open nftables in the switch: %w", err)
	}
	return l.faults.setUp(l.filter)
}

// claim makes the lab's directory with a lock that dies with this process.
func (l *Lab) claim(base string) error {
	unlock, err := lockDir(base)
	if err != nil {
		return err
	}
	defer unlock()
	if err := os.MkdirAll(l.dir, 0o755); err != nil {
		return err
	}
	l.lock, err = os.Create(filepath.Join(l.dir, "lock"))
	if err != nil {
		return err
	}
	return unix.Flock(int(l.lock.Fd()), unix.LOCK_EX|unix.LOCK_NB)
}

func (l *Lab) addNetwork(i int, name string) error {
	if name == "" || strings.ContainsAny(name, "/ \t\n-") || l.networks[name] != nil {
		return fmt.Errorf("bad or double name %q", name)
	}
	snooping := false // a switch that forwards all multicast, as a plain one does
	bridge := &netlink.Bridge{
		LinkAttrs:         netlink.LinkAttrs{Name: fmt.Sprintf("br-%d", i), TxQLen: -1},
		MulticastSnooping: &snooping,
	}
	if err := l.links.LinkAdd(bridge); err != nil {
		return err
	}
	l.networks[name] = bridge
	return l.links.LinkSetUp(bridge)
}

// AddHost adds a host and boots it. A host that did not boot stays in the lab, off.
func (l *Lab) AddHost(config HostConfig) (*Host, error) {
	for network, addresses := range config.Addresses {
		if l.networks[network] == nil {
			return nil, fmt.Errorf("add host %s: the lab has no network %q", config.Name, network)
		}
		for _, a := range addresses {
			if !a.IsValid() {
				return nil, fmt.Errorf("add host %s: invalid address on network %s", config.Name, network)
			}
		}
	}
	if config.Name == "" || config.Name != plainName(config.Name) {
		return nil, fmt.Errorf("add host: bad name %q: letters, digits and - only", config.Name)
	}
	for _, path := range config.Disk {
		if !filepath.IsAbs(path) {
			return nil, fmt.Errorf("add host %s: its directory %q is not an absolute path", config.Name, path)
		}
	}
	l.mu.Lock()
	if l.closed || l.hosts[config.Name] != nil {
		l.mu.Unlock()
		return nil, fmt.Errorf("add host %s: the lab is closed or has a host of that name", config.Name)
	}
	h := &Host{lab: l, config: config, number: len(l.hosts) + 1,
		dir: filepath.Join(l.dir, config.Name), cgroup: filepath.Join(l.cgroup, config.Name)}
	l.hosts[config.Name] = h
	l.mu.Unlock()
	return h, h.Boot()
}

// Host returns the host of that name, or nil.
func (l *Lab) Host(name string) *Host {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.hosts[name]
}

// Dir is the lab's directory on the machine, for a test's own files; it goes with the lab.
func (l *Lab) Dir() string { return l.dir }

// Close powers every host off and removes everything that the lab made. Again, it does nothing.
func (l *Lab) Close() error {
	l.mu.Lock()
	if l.closed {
		l.mu.Unlock()
		return nil
	}
	l.closed = true
	hosts := make([]*Host, 0, len(l.hosts))
	for _, h := range l.hosts {
		hosts = append(hosts, h)
	}
	l.mu.Unlock()

	var errs []error
	for _, h := range hosts {
		errs = append(errs, h.PowerOff())
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.filter != nil {
		errs = append(errs, l.filter.CloseLasting())
	}
	if l.links != nil {
		l.links.Close()
	}
	if l.switchNS.IsOpen() {
		errs = append(errs, l.switchNS.Close()) // its last reference: bridges and rules go with it
	}
	errs = append(errs, removeCgroup(l.cgroup))
	if !l.keep {
		errs = append(errs, os.RemoveAll(l.dir))
	}
	if l.lock != nil {
		errs = append(errs, l.lock.Close())
	}
	if unlock, err := lockDir(filepath.Dir(l.dir)); err == nil {
		unlock() // which removes the directory after its last lab
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("close lab %s: %w", l.id, err)
	}
	return nil
}

// Sweep removes what labs below dir ("": the default) have left whose program is gone: processes,
// cgroups and directories. Labs that live are not touched; a lock tells them apart, which, unlike a
// process id, is never taken over by someone else.
func Sweep(dir string) error {
	if dir == "" {
		dir = defaultDir
	}
	mount, err := cgroupMount()
	if err != nil {
		return err
	}
	unlock, err := lockDir(dir)
	if err != nil {
		return fmt.Errorf("sweep labs in %s: %w", dir, err)
	}
	defer unlock()
	entries, err := os.ReadDir(dir)
	if err != nil {
		return fmt.Errorf("sweep labs in %s: %w", dir, err)
	}
	var errs []error
	for _, e := range entries {
		path := filepath.Join(dir, e.Name())
		if !strings.HasPrefix(e.Name(), idPrefix) || lives(path) {
			continue
		}
		errs = append(errs, removeCgroup(filepath.Join(mount, e.Name())), os.RemoveAll(path))
	}
	return errors.Join(errs...)
}

// lives says whether some process holds the lock of the lab in this directory.
func lives(dir string) bool {
	f, err := os.Open(filepath.Join(dir, "lock"))
	if err != nil {
		return false // it died between making the directory and the lock: lockDir excludes a living one
	}
	defer f.Close()
	return unix.Flock(int(f.Fd()), unix.LOCK_SH|unix.LOCK_NB) != nil
}

// lockDir keeps New and Sweep of all programs apart while one looks at or adds to the directory. Unlocking removes
// the default directory once nothing of a lab is in it.
func lockDir(dir string) (unlock func(), err error) {
	path := filepath.Join(dir, ".lock")
	for try := 1; ; try++ {
		var f *os.File
		if err = os.MkdirAll(dir, 0o755); err == nil {
			f, err = os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
		}
		if (errors.Is(err, os.ErrNotExist) || errors.Is(err, os.ErrExist)) && try < lockTries {
			continue // somebody has just removed the directory
		}
		if err != nil {
			return nil, err
		}
		err = unix.Flock(int(f.Fd()), unix.LOCK_EX)
		switch {
		case err == nil && isAt(f, path):
			return func() {
				if entries, err := os.ReadDir(dir); err == nil && len(entries) == 1 && dir == defaultDir {
					os.Remove(path) // first: who waits for the lock sees that it is void
					os.Remove(dir)
				}
				f.Close()
			}, nil
		case err != nil && !errors.Is(err, unix.EINTR):
			f.Close()
			return nil, err
		}
		f.Close() // interrupted, or it was removed while we waited
	}
}

// isAt says whether an open file is what its path leads to still.
func isAt(f *os.File, path string) bool {
	a, err := f.Stat()
	if err != nil {
		return false
	}
	b, err := os.Lstat(path)
	return err == nil && os.SameFile(a, b)
}

// cgroupMount returns where cgroup2 is mounted on this machine.
func cgroupMount() (string, error) {
	text, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return "", err
	}
	for line := range strings.Lines(string(text)) {
		// proc_pid_mountinfo(5): the fifth field is the mount point, the type follows a lone "-".
		front, back, found := strings.Cut(line, " - ")
		fields := strings.Fields(front)
		if found && len(fields) >= 5 && strings.HasPrefix(back, "cgroup2 ") {
			return fields[4], nil
		}
	}
	return "", errors.New("find the cgroup2 mount: /proc/self/mountinfo names none")
}

// RemoveCgroup kills what runs in a cgroup, named by its path below the mount, and below it, and removes it and
// those above it that are empty then. A missing one is no error.
func RemoveCgroup(path string) error {
	mount, err := cgroupMount()
	if err != nil {
		return nil // where none is mounted there is none
	}
	if err := removeCgroup(filepath.Join(mount, path)); err != nil {
		return err
	}
	for above := filepath.Dir(path); above != "." && unix.Rmdir(filepath.Join(mount, above)) == nil; {
		above = filepath.Dir(above)
	}
	return nil
}

// removeCgroup kills what runs in the cgroup and below, and removes it. A missing one is no error.
func removeCgroup(dir string) error {
	err := os.WriteFile(filepath.Join(dir, "cgroup.kill"), []byte("1"), 0)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	deadline := time.Now().Add(endWait)
	for {
		err := removeTree(dir)
		if err == nil {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("remove cgroup %s, %v after its processes were killed: %w", dir, endWait, err)
		}
		time.Sleep(2 * time.Millisecond)
	}
}

// removeTree removes the directories below dir and then dir; the files of a cgroup go with it.
func removeTree(dir string) error {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, e := range entries {
		if e.IsDir() {
			if err := removeTree(filepath.Join(dir, e.Name())); err != nil {
				return err
			}
		}
	}
	return unix.Rmdir(dir)
}

// plainName keeps what may stand in a host name, a file name and a link name.
func plainName(name string) string {
	return strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '-' {
			return r
		}
		return '-'
	}, name)
}

// portName names a host's port in the switch: after both, or, where that is too long for a link, by a hash of both.
func portName(host, network string) string {
	name := host + "-" + network
	if len(name) <= maxLinkName {
		return name
	}
	h := fnv.New64a()
	h.Write([]byte(name))
	return fmt.Sprintf("p%014x", h.Sum64()&(1<<56-1))
}

// family tells netlink's word for an address's family.
func family(a netip.Addr) int {
	if a.Is4() {
		return unix.AF_INET
	}
	return unix.AF_INET6
}
