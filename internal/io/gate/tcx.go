package gate

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"
)

// hook is one side of one interface.
type hook struct {
	index  int
	egress bool
}

func (h hook) String() string {
	if h.egress {
		return strconv.Itoa(h.index) + "_out"
	}
	return strconv.Itoa(h.index) + "_in"
}

func (h hook) attachType() ebpf.AttachType {
	if h.egress {
		return ebpf.AttachTCXEgress
	}
	return ebpf.AttachTCXIngress
}

// pins are a gate's programs at tcx hooks: BPF links, each pinned in a bpffs of the gate's own, so that it outlives
// this process.
type pins struct {
	dir    string // where the bpffs is
	prefix string // of this gate's pins in it
	links  map[hook]*pinned
	inside func(func() error) error // runs a function in the gate's network namespace
}

// pinned is one link. Nothing of it changes but its program.
type pinned struct {
	link.Link
	prog ebpf.ProgramID
	use  sync.Mutex // held while the kernel is asked: the descriptor is not closed, and another file's, meanwhile
}

func (l *pinned) Close() error {
	l.use.Lock()
	defer l.use.Unlock()
	return l.Link.Close()
}

// presence is what the kernel says of a link.
type presence int

const (
	unknown  presence = iota // the kernel does not say
	attached                 // the program runs
	detached                 // by its interface's end, or by somebody
)

// ask asks the kernel, which may let it wait for a lock that all changes of interfaces take. A link that was detached
// names no interface.
func (l *pinned) ask() presence {
	l.use.Lock()
	defer l.use.Unlock()
	info, err := l.Info()
	if err != nil {
		return unknown
	}
	switch x := info.TCX(); {
	case x == nil:
		return unknown
	case x.Ifindex == 0:
		return detached
	}
	return attached
}

// openPins finds the bpffs, if it is there; it is made for the first pin.
func openPins(dir, prefix string) (*pins, error) {
	if dir == "" {
		return nil, errors.New("no directory for the gate's pins was named")
	}
	inside, err := here()
	if err != nil {
		return nil, err
	}
	return &pins{dir: dir, prefix: prefix, links: map[hook]*pinned{}, inside: inside}, nil
}

// outlives tells whether what this process mounts is there after its end: only in the mount namespace of PID 1. In
// one of its unit's own (PrivateTmp and the like) pins would go with it, and open the gate.
var outlives = func() error {
	own, err := os.Readlink("/proc/self/ns/mnt")
	if err != nil {
		return err
	}
	if first, err := os.Readlink("/proc/1/ns/mnt"); err != nil || first != own {
		return fmt.Errorf("this process is not known to share the mount namespace of PID 1, so pins may not outlive it (%s, PID 1 %s, %v)", own, first, err)
	}
	return nil
}

// here returns how to run something in the calling thread's network namespace: at once where the whole process is in
// it, else on a thread that goes there.
func here() (func(func() error) error, error) {
	own, err := os.Readlink("/proc/thread-self/ns/net")
	if err != nil {
		return nil, err
	}
	threads, err := filepath.Glob("/proc/self/task/*/ns/net")
	if err != nil {
		return nil, err
	}
	if !slices.ContainsFunc(threads, func(thread string) bool {
		other, err := os.Readlink(thread)
		return err == nil && other != own // one that has ended meanwhile is in none
	}) {
		return func(f func() error) error { return f() }, nil
	}
	ns, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		return nil, err
	}
	return func(f func() error) error {
		done := make(chan error)
		go func() {
			runtime.LockOSThread() // the thread ends with the goroutine: nobody else gets it
			if err := unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET); err != nil {
				done <- fmt.Errorf("enter the gate's network namespace: %w", err)
				return
			}
			done <- f()
		}()
		return <-done
	}, nil
}

// mount mounts the bpffs where it is not.
func (p *pins) mount() error {
	if err := os.MkdirAll(p.dir, 0o700); err != nil {
		return fmt.Errorf("make a place for the gate's pins: %w", err)
	}
	if mounted(p.dir) {
		return nil
	}
	if err := unix.Mount("baton", p.dir, "bpf", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "mode=700"); err != nil {
		os.Remove(p.dir)
		return fmt.Errorf("mount a bpffs at %s: %w", p.dir, err)
	}
	return nil
}

func mounted(dir string) bool {
	var s unix.Statfs_t
	return unix.Statfs(dir, &s) == nil && s.Type == unix.BPF_FS_MAGIC
}

func (p *pins) path(at hook) string { return filepath.Join(p.dir, p.prefix+at.String()) }

// find takes over what a predecessor has pinned. A pin whose interface is gone is removed.
func (p *pins) find() error {
	if !mounted(p.dir) {
		return nil
	}
	entries, err := os.ReadDir(p.dir)
	if err != nil {
		return fmt.Errorf("read the gate's pins: %w", err)
	}
	for _, e := range entries {
		name, ours := strings.CutPrefix(e.Name(), p.prefix)
		number, side, _ := strings.Cut(name, "_")
		index, err := strconv.Atoi(number)
		if !ours || err != nil || side != "in" && side != "out" {
			continue
		}
		at := hook{index, side == "out"}
		l, err := link.LoadPinnedLink(p.path(at), nil)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return fmt.Errorf("take over the pin %s: %w", p.path(at), err)
		}
		info, err := l.Info()
		if err != nil {
			l.Close()
			return fmt.Errorf("read the link of %s: %w", p.path(at), err)
		}
		p.links[at] = &pinned{Link: l, prog: info.Program}
		if x := info.TCX(); x == nil || x.Ifindex != uint32(index) {
			p.drop(at)
		}
	}
	return nil
}

// programs returns the ids of the programs at the hooks, each once.
func (p *pins) programs() (ids []ebpf.ProgramID) {
	seen := map[ebpf.ProgramID]bool{}
	for _, l := range p.links {
		if !seen[l.prog] {
			seen[l.prog] = true
			ids = append(ids, l.prog)
		}
	}
	return ids
}

// has tells whether both hooks of an interface have a link, whole or not.
func (p *pins) has(index int) bool {
	return p.links[hook{index, false}] != nil && p.links[hook{index, true}] != nil
}

// any tells whether some link is pinned.
func (p *pins) any() bool {
	for at := range p.links {
		if p.pinned(at) {
			return true
		}
	}
	return false
}

// place puts a program at the head of a hook, and pins it. It tells whether the link that was there had been taken
// off or unpinned. A link that can't be pinned is an error, and does its work as long as this process lives.
func (p *pins) place(at hook, prog *loaded) (off bool, err error) {
	l := p.links[at]
	if l != nil && l.ask() == detached {
		p.drop(at)
		l, off = nil, true
	}
	if l == nil {
		if l, err = p.attach(at, prog); err != nil {
			return off, err
		}
		return off, p.pin(at, l)
	}
	if l.prog != prog.id { // at one instant
		if err := l.Update(prog.Program); err != nil {
			return off, fmt.Errorf("exchange the program: %w", err)
		}
		l.prog = prog.id
	}
	if p.pinned(at) {
		return off, nil
	}
	return true, p.pin(at, l)
}

func (p *pins) pinned(at hook) bool {
	var s unix.Stat_t
	return unix.Lstat(p.path(at), &s) == nil
}

func (p *pins) pin(at hook, l *pinned) error {
	err := p.mount()
	if err == nil {
		err = l.Unpin() // which forgets where it was
	}
	if err == nil { // what somebody else left under this name is of no use to anybody
		if err = os.Remove(p.path(at)); errors.Is(err, fs.ErrNotExist) {
			err = nil
		}
	}
	if err == nil {
		err = l.Pin(p.path(at))
	}
	if err != nil {
		return fmt.Errorf("pin the gate's link at %s, without which the agent's death would open it: %w", p.path(at), err)
	}
	return nil
}

// attach puts a program before all others at a hook: one before it could end the chain and let a packet past the gate.
func (p *pins) attach(at hook, prog *loaded) (*pinned, error) {
	var l link.Link
	err := p.inside(func() (err error) {
		l, err = link.AttachTCX(link.TCXOptions{Interface: at.index, Program: prog.Program, Attach: at.attachType(), Anchor: link.Head()})
		return err
	})
	if err != nil {
		return nil, err
	}
	p.links[at] = &pinned{Link: l, prog: prog.id}
	return p.links[at], nil
}

// drop lets a link go: with its pin and this descriptor it ends. It is not waited for.
func (p *pins) drop(at hook) {
	if l := p.links[at]; l != nil {
		_ = l.Unpin() // a pin that can't be removed is found dead, and dropped, by a successor
		l.Close()
		delete(p.links, at)
	}
}

// remove takes the program off a hook for good.
func (p *pins) remove(at hook) error {
	l := p.links[at]
	if l == nil {
		return nil
	}
	var err error
	if d, ok := l.Link.(interface{ Detach() error }); ok {
		err = d.Detach()
	}
	p.drop(at)
	if err != nil && !errors.Is(err, unix.ENOLINK) && !gone(err) {
		return fmt.Errorf("detach link %s: %w", at, err)
	}
	return nil
}

// missing lists the hooks whose link was detached or has lost its pin. It asks the kernel twice for each, 2 µs in all.
func (p *pins) missing() (off []hook) {
	for at, l := range p.links {
		if p.off(at, l) {
			off = append(off, at)
		}
	}
	return off
}

// off tells whether a link was detached or has lost its pin.
func (p *pins) off(at hook, l *pinned) bool { return l.ask() == detached || !p.pinned(at) }

// before names the programs of others that run ahead of the gate at a hook, or "": each could let packets past it.
func (p *pins) before(at hook) string {
	l := p.links[at]
	if l == nil {
		return ""
	}
	var all *link.QueryResult
	if err := p.inside(func() (err error) {
		all, err = link.QueryPrograms(link.QueryOptions{Target: at.index, Attach: at.attachType()})
		return err
	}); err != nil {
		return ""
	}
	var ahead []string
	for _, one := range all.Programs {
		if one.ID == l.prog {
			break
		}
		ahead = append(ahead, strconv.Itoa(int(one.ID)))
	}
	return strings.Join(ahead, ", ")
}

// close lets go of the links: their pins hold them.
func (p *pins) close() {
	for at, l := range p.links {
		l.Close()
		delete(p.links, at)
	}
}

// unmount takes the bpffs away, if nobody else's pins are in it.
func (p *pins) unmount() error {
	entries, err := os.ReadDir(p.dir)
	if err != nil || !mounted(p.dir) {
		return nil // it is not there
	}
	for _, e := range entries {
		if !strings.HasSuffix(e.Name(), ".debug") { // the kernel's own
			return nil
		}
	}
	if err := unix.Unmount(p.dir, unix.MNT_DETACH); err != nil {
		return fmt.Errorf("unmount %s: %w", p.dir, err)
	}
	return os.Remove(p.dir)
}
