package addr

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// groupsOfAddresses are the rtnetlink groups that tell of addresses, as a mask for bind.
const groupsOfAddresses = 1<<(unix.RTNLGRP_IPV4_IFADDR-1) | 1<<(unix.RTNLGRP_IPV6_IFADDR-1)

// noticeMax is more than the kernel's notices about addresses take.
const noticeMax = 16 << 10

// table has all addresses of a network namespace, for all routes in it. On a host with hundreds of addresses, asking
// the kernel for all of them on behalf of each is what nearly all of the time went into. It is asked once; from then on
// the kernel's notices keep the table, and it is asked again where some were lost.
//
// Whoever reads takes in first what notices there are. The kernel gives them out before it answers a request, but for
// IPv6 addresses without duplicate detection, and those that it gives an interface by itself: of these it tells when they
// can be used. So what this process has changed is always in the table, with the help of forget.
type table struct {
	cookie uint64 // of the network namespace
	users  int    // guarded by tables.mu

	notices *os.File
	raw     syscall.RawConn
	reader  sync.WaitGroup

	mu       sync.Mutex
	lists    map[int][]present // by family, as they are now; a list that was handed out is never changed
	watchers []chan struct{}
	losses   map[chan struct{}]place // who is told when an address goes from where it is
	buffer   []byte
}

// dumpTries is how often the kernel is asked for a list that it was interrupted in making. Asking takes less than a
// millisecond: so many changes in a row would be no accident.
const dumpTries = 10

// place is where an address is.
type place struct {
	addr  netip.Addr
	index int // of the interface
}

var tables = struct {
	mu sync.Mutex
	by map[uint64]*table // by the network namespace's cookie
}{by: make(map[uint64]*table)}

// shareTable returns the table of a socket's network namespace, for use until release. It is called on a thread in that
// namespace.
func shareTable(socket int) (*table, error) {
	cookie, err := unix.GetsockoptUint64(socket, unix.SOL_SOCKET, unix.SO_NETNS_COOKIE)
	if err != nil { // before Linux 5.14: each has its own
		cookie = 0
	}
	tables.mu.Lock()
	defer tables.mu.Unlock()
	if t := tables.by[cookie]; t != nil && cookie != 0 {
		t.users++
		return t, nil
	}
	t, err := openTable()
	if err != nil {
		return nil, err
	}
	t.cookie, t.users = cookie, 1
	if cookie != 0 {
		tables.by[cookie] = t
	}
	return t, nil
}

func openTable() (*table, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("open a netlink socket: %w", err)
	}
	if err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: groupsOfAddresses}); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("subscribe to address changes: %w", err)
	}
	t := &table{notices: os.NewFile(uintptr(fd), "addresses"), lists: make(map[int][]present),
		losses: make(map[chan struct{}]place), buffer: make([]byte, noticeMax)}
	if t.raw, err = t.notices.SyscallConn(); err != nil {
		t.notices.Close()
		return nil, fmt.Errorf("watch a netlink socket: %w", err)
	}
	t.reader.Go(t.read)
	return t, nil
}

// release ends the use; the last one closes the table.
func (t *table) release() {
	tables.mu.Lock()
	t.users--
	last := t.users == 0
	if last && tables.by[t.cookie] == t {
		delete(tables.by, t.cookie)
	}
	tables.mu.Unlock()
	if last {
		t.notices.Close()
		t.reader.Wait()
	}
}

// read takes in notices as they come, for the watchers and so that none are lost for want of room.
func (t *table) read() {
	_ = t.raw.Read(func(fd uintptr) bool {
		t.mu.Lock()
		defer t.mu.Unlock()
		t.take(int(fd))
		return false // until it is closed
	})
}

// addresses lists the addresses of one family; dump asks the kernel, where they are not known. A list that is not whole
// counts for nothing: an address that it lacks would pass for one that is gone.
func (t *table) addresses(family int, dump func(int) ([]present, bool, error)) ([]present, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if err := t.raw.Control(func(fd uintptr) { t.take(int(fd)) }); err != nil {
		return nil, fmt.Errorf("list addresses: %w", err)
	}
	if list, known := t.lists[family]; known {
		return list, nil
	}
	for range dumpTries {
		list, whole, err := dump(family)
		if err != nil {
			return nil, err
		}
		if whole { // notices that came meanwhile are taken in by the next
			t.lists[family] = list
			return list, nil
		}
	}
	return nil, fmt.Errorf("list addresses: they changed while the kernel listed them, %d times in a row", dumpTries)
}

// forget has the kernel asked again for the addresses of one family.
func (t *table) forget(family int) {
	t.mu.Lock()
	delete(t.lists, family)
	t.mu.Unlock()
}

// take takes in the notices that are there. It is called with mu held.
func (t *table) take(fd int) {
	news := false
	for {
		n, from, err := unix.Recvfrom(fd, t.buffer, unix.MSG_DONTWAIT)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if errors.Is(err, unix.EAGAIN) {
			break
		}
		if err != nil { // some were lost (ENOBUFS), or it is not known
			news = true
			t.unsure()
			if errors.Is(err, unix.ENOBUFS) {
				continue
			}
			break
		}
		if sender, ok := from.(*unix.SockaddrNetlink); !ok || sender.Pid != 0 {
			continue // any process may write to our socket
		}
		news = true
		messages, err := syscall.ParseNetlinkMessage(t.buffer[:n])
		if err != nil {
			t.unsure()
		}
		for _, m := range messages {
			t.note(m.Header.Type, m.Data)
		}
	}
	if news {
		for _, w := range t.watchers {
			signal(w)
		}
	}
}

// note takes in one notice.
func (t *table) note(kind uint16, body []byte) {
	if kind != unix.RTM_NEWADDR && kind != unix.RTM_DELADDR {
		return
	}
	p, err := parseAddress(body)
	if err != nil || !p.addr.IsValid() {
		t.unsure()
		return
	}
	if kind == unix.RTM_DELADDR {
		for told, at := range t.losses {
			if at == (place{p.addr, p.index}) {
				signal(told)
			}
		}
	}
	list, known := t.lists[familyOf(p.addr)]
	if !known {
		return
	}
	next := slices.DeleteFunc(slices.Clone(list), p.same)
	if kind == unix.RTM_NEWADDR {
		next = append(next, p)
	}
	t.lists[familyOf(p.addr)] = next
}

// unsure has the kernel asked again, for anything may have come or gone.
func (t *table) unsure() {
	clear(t.lists)
	for told := range t.losses {
		signal(told)
	}
}

// same tells whether the kernel takes both for one address: an interface may have an IPv4 address once with each prefix.
func (p present) same(other present) bool {
	return p.index == other.index && p.addr == other.addr && (p.addr.Is6() || p.bits == other.bits && p.network == other.network)
}

// watch returns a channel that gets a token when addresses have changed, or may have, and the table knows of it.
func (t *table) watch() chan struct{} {
	news := make(chan struct{}, 1)
	t.mu.Lock()
	t.watchers = append(t.watchers, news)
	t.mu.Unlock()
	return news
}

func (t *table) unwatch(news chan struct{}) {
	t.mu.Lock()
	t.watchers = slices.DeleteFunc(t.watchers, func(w chan struct{}) bool { return w == news })
	t.mu.Unlock()
}

// watchLoss has a token put into the channel each time that an address goes from an interface, or may have.
func (t *table) watchLoss(addr netip.Addr, index int, told chan struct{}) {
	t.mu.Lock()
	t.losses[told] = place{addr, index}
	t.mu.Unlock()
}

func (t *table) unwatchLoss(told chan struct{}) {
	t.mu.Lock()
	delete(t.losses, told)
	t.mu.Unlock()
}
