package gate

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// monitor tells of what others do to a table: nft monitor's news (NFNLGRP_NFTABLES) without those that this gate's own
// sockets bring about, which the kernel drops before this process wakes.
type monitor struct {
	conn *netlink.Conn
	done chan struct{}
	over chan struct{}
}

// newMonitor calls touched each time that somebody else has changed the table, or may have.
func newMonitor(log *slog.Logger, table string, own []uint32, touched func()) (*monitor, error) {
	conn, err := netlink.Dial(unix.NETLINK_NETFILTER, nil)
	if err != nil {
		return nil, fmt.Errorf("open nfnetlink: %w", err)
	}
	if err := errors.Join(ignore(conn, own), conn.JoinGroup(unix.NFNLGRP_NFTABLES)); err != nil {
		conn.Close()
		return nil, fmt.Errorf("subscribe to news of nftables: %w", err)
	}
	m := &monitor{conn, make(chan struct{}), make(chan struct{})}
	go m.run(log, table, touched)
	return m, nil
}

// ignore has the kernel drop messages that begin with one of a transaction of these port ids. All that one transaction
// brings about carries the same.
func ignore(conn *netlink.Conn, own []uint32) error {
	const portAt = 12 // of nlmsg_pid in struct nlmsghdr, in this machine's order; the filter reads it as big-endian
	code := []unix.SockFilter{{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: portAt}}
	for i, port := range own {
		value := binary.BigEndian.Uint32(native.AppendUint32(nil, port))
		code = append(code, unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, Jt: uint8(len(own) - i), K: value})
	}
	code = append(code, unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: ^uint32(0)}, unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K})
	raw, err := conn.SyscallConn()
	if err != nil {
		return err
	}
	var set error
	err = raw.Control(func(fd uintptr) {
		set = unix.SetsockoptSockFprog(int(fd), unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &unix.SockFprog{Len: uint16(len(code)), Filter: &code[0]})
	})
	return errors.Join(err, set)
}

// portOf returns the port id of a netlink socket.
func portOf(fd int) (uint32, error) {
	address, err := unix.Getsockname(fd)
	if a, ok := address.(*unix.SockaddrNetlink); ok && err == nil {
		return a.Pid, nil
	}
	return 0, fmt.Errorf("read a netlink socket's address: %w", err)
}

func (m *monitor) run(log *slog.Logger, table string, touched func()) {
	defer close(m.over)
	for {
		messages, err := m.conn.Receive()
		select {
		case <-m.done:
			return
		default:
		}
		if err != nil { // the socket's buffer ran over, most likely: anything may have happened
			log.Warn("news of nftables was lost", "cause", err)
			touched()
			if !m.rest(settle) {
				return
			}
			continue
		}
		for _, one := range messages {
			if concerns(one, table) {
				touched()
				if !m.rest(restAfter) {
					return
				}
				break
			}
		}
	}
}

// restAfter keeps somebody who changes the table all the time from taking a processor.
const restAfter = 5 * time.Millisecond

func (m *monitor) rest(d time.Duration) bool {
	select {
	case <-m.done:
		return false
	case <-time.After(d):
		return true
	}
}

// concerns tells whether news is of the table, or of what is in it: its name is the first attribute of each kind.
func concerns(m netlink.Message, table string) bool {
	const headerSize, nameKind = 4, 1 // struct nfgenmsg; NFTA_TABLE_NAME, NFTA_CHAIN_TABLE, NFTA_RULE_TABLE, …
	if m.Header.Type>>8 != unix.NFNL_SUBSYS_NFTABLES || m.Header.Type&0xff == unix.NFT_MSG_NEWGEN || len(m.Data) < headerSize {
		return false
	}
	attributes, err := netlink.UnmarshalAttributes(m.Data[headerSize:])
	if err != nil {
		return true
	}
	for _, a := range attributes {
		if a.Type == nameKind {
			return string(bytes.TrimRight(a.Data, "\x00")) == table
		}
	}
	return false
}

func (m *monitor) close() {
	close(m.done)
	m.conn.Close()
	<-m.over
}
