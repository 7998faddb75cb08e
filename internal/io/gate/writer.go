package gate

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// writer changes elements of the two "open" sets by netlink batches that are built once and patched: a
// renewal is one write and the reading of its answers, 5 us, without allocation. (The nftables package
// neither sends NFTA_SET_ELEM_EXPIRATION, without which a renewal by the same timeout does nothing, nor
// does it without allocation.)
type writer struct {
	fd     int
	seq    uint32
	answer [4096]byte
	// replace says that elements must be deleted and added anew, not just added again.
	replace bool

	add, swap, erase *batch // each changes both tables at once
}

// batch is a ready message sequence, with the places that change.
type batch struct {
	bytes    []byte
	headers  []int // of each message: where it begins
	keys     []int // 4 bytes, native order, as rules hold it in a register
	lives    []int // 8 bytes, milliseconds, network order
	answered int   // messages that ask for an answer
}

var families = [2]uint8{unix.NFPROTO_INET, unix.NFPROTO_ARP}

func newWriter(table string) (*writer, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_NETFILTER)
	if err != nil {
		return nil, fmt.Errorf("open nfnetlink: %w", err)
	}
	w := &writer{fd: fd}
	if err := unix.Connect(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		w.close()
		return nil, fmt.Errorf("connect nfnetlink: %w", err)
	}
	// The kernel answers within the write. Should an answer be lost, reading must not hang.
	wait := unix.NsecToTimeval(int64(time.Second))
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &wait); err != nil {
		w.close()
		return nil, fmt.Errorf("limit waiting on nfnetlink: %w", err)
	}
	const put, del = unix.NFT_MSG_NEWSETELEM, unix.NFT_MSG_DELSETELEM
	w.add = newBatch(table, step{put, families[0]}, step{put, families[1]})
	// To delete an element that is not there, or has expired, fails, and undoing a failed batch takes the
	// kernel some 10 ms. So what is to be deleted is added first, which does nothing where it is there;
	// none of it acts before all is done.
	inet, arp := families[0], families[1]
	w.erase = newBatch(table, step{put, inet}, step{put, arp}, step{del, inet}, step{del, arp})
	w.swap = newBatch(table, step{put, inet}, step{put, arp}, step{del, inet}, step{del, arp}, step{put, inet}, step{put, arp})
	return w, nil
}

func (w *writer) close() error { return os.NewSyscallError("close", unix.Close(w.fd)) }

// step is one message of a batch.
type step struct {
	kind   uint16
	family uint8
}

func newBatch(table string, steps ...step) *batch {
	b := &batch{answered: len(steps)}
	// The sequence is marked by messages of its own, linux/netfilter/nfnetlink.h; they name the subsystem.
	b.message(unix.NFNL_MSG_BATCH_BEGIN, unix.NLM_F_REQUEST, unix.AF_UNSPEC, unix.NFNL_SUBSYS_NFTABLES, nil)
	for _, s := range steps {
		flags := uint16(unix.NLM_F_REQUEST | unix.NLM_F_ACK)
		if s.kind == unix.NFT_MSG_NEWSETELEM {
			flags |= unix.NLM_F_CREATE
		}
		b.message(unix.NFNL_SUBSYS_NFTABLES<<8|s.kind, flags, s.family, 0, func() { b.element(table, s.kind) })
	}
	b.message(unix.NFNL_MSG_BATCH_END, unix.NLM_F_REQUEST, unix.AF_UNSPEC, unix.NFNL_SUBSYS_NFTABLES, nil)
	return b
}

// message appends struct nlmsghdr, struct nfgenmsg and a body.
func (b *batch) message(kind, flags uint16, family uint8, resource uint16, body func()) {
	at := len(b.bytes)
	b.headers = append(b.headers, at)
	b.bytes = append(b.bytes, 0, 0, 0, 0)
	b.bytes = native.AppendUint16(b.bytes, kind)
	b.bytes = native.AppendUint16(b.bytes, flags)
	b.bytes = append(b.bytes, 0, 0, 0, 0, 0, 0, 0, 0) // sequence, port
	b.bytes = append(b.bytes, family, 0)
	b.bytes = binary.BigEndian.AppendUint16(b.bytes, resource)
	if body != nil {
		body()
	}
	native.PutUint32(b.bytes[at:], uint32(len(b.bytes)-at))
}

func (b *batch) element(table string, kind uint16) {
	b.attribute(unix.NFTA_SET_ELEM_LIST_TABLE, func() { b.bytes = append(b.bytes, table+"\x00"...) })
	b.attribute(unix.NFTA_SET_ELEM_LIST_SET, func() { b.bytes = append(b.bytes, "open\x00"...) })
	b.attribute(unix.NFTA_SET_ELEM_LIST_ELEMENTS|unix.NLA_F_NESTED, func() {
		b.attribute(unix.NFTA_LIST_ELEM|unix.NLA_F_NESTED, func() {
			b.attribute(unix.NFTA_SET_ELEM_KEY|unix.NLA_F_NESTED, func() {
				b.attribute(unix.NFTA_DATA_VALUE, func() { b.place(&b.keys, 4) })
			})
			if kind == unix.NFT_MSG_NEWSETELEM {
				b.attribute(unix.NFTA_SET_ELEM_TIMEOUT, func() { b.place(&b.lives, 8) })
				b.attribute(unix.NFTA_SET_ELEM_EXPIRATION, func() { b.place(&b.lives, 8) })
			}
		})
	})
}

func (b *batch) attribute(kind uint16, body func()) {
	at := len(b.bytes)
	b.bytes = append(b.bytes, 0, 0)
	b.bytes = native.AppendUint16(b.bytes, kind)
	body()
	native.PutUint16(b.bytes[at:], uint16(len(b.bytes)-at))
	for len(b.bytes)%unix.NLA_ALIGNTO != 0 {
		b.bytes = append(b.bytes, 0)
	}
}

func (b *batch) place(list *[]int, size int) {
	*list = append(*list, len(b.bytes))
	b.bytes = append(b.bytes, make([]byte, size)...)
}

// put makes a slot open for the time given, at least a millisecond, in both tables.
func (w *writer) put(slot uint32, life time.Duration) error {
	if w.replace {
		return w.run(w.swap, slot, life)
	}
	return w.run(w.add, slot, life)
}

// drop closes a slot. Without tables nothing is open: not an error.
func (w *writer) drop(slot uint32) error {
	if err := w.run(w.erase, slot, time.Second); !errors.Is(err, unix.ENOENT) {
		return err
	}
	return nil
}

func (w *writer) run(b *batch, slot uint32, life time.Duration) error {
	w.seq++
	for _, at := range b.headers {
		native.PutUint32(b.bytes[at+8:], w.seq)
	}
	for _, at := range b.keys {
		native.PutUint32(b.bytes[at:], slot)
	}
	for _, at := range b.lives {
		binary.BigEndian.PutUint64(b.bytes[at:], uint64(life.Milliseconds()))
	}
	for {
		_, err := unix.Write(w.fd, b.bytes)
		if err == nil {
			break
		}
		if err != unix.EINTR {
			return fmt.Errorf("write to nfnetlink: %w", err)
		}
	}
	return w.answers(b.answered)
}

// answers reads the kernel's answer to each message of the last batch; the first error counts. After an
// error nothing of the batch is done, and not every message may be answered.
func (w *writer) answers(count int) error {
	for count > 0 {
		n, err := unix.Read(w.fd, w.answer[:])
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return fmt.Errorf("read nfnetlink's answer: %w", err)
		}
		for at := 0; at+20 <= n; {
			size := int(native.Uint32(w.answer[at:]))
			if size < 20 {
				break
			}
			if native.Uint32(w.answer[at+8:]) == w.seq && native.Uint16(w.answer[at+4:]) == unix.NLMSG_ERROR {
				if errno := -int32(native.Uint32(w.answer[at+16:])); errno != 0 {
					return unix.Errno(errno)
				}
				count--
			}
			at += (size + 3) &^ 3
		}
	}
	return nil
}
