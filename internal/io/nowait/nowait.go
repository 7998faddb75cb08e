// Package nowait makes system calls that never wait, without telling Go's scheduler of them. Told of a call, it
// wakes its monitor thread, which then looks each 20 µs whether the call still lasts: a fifth of what an idle
// agent cost. So nothing here may be given a descriptor that waits.
package nowait

import (
	"encoding/binary"
	"net/netip"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Read reads from a descriptor that does not wait (O_NONBLOCK).
func Read(fd int, b []byte) (int, error) {
	n, _, errno := unix.RawSyscall(unix.SYS_READ, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(b))), uintptr(len(b)))
	return count(n, errno)
}

// Write writes to a descriptor that does not wait (O_NONBLOCK).
func Write(fd int, b []byte) (int, error) {
	n, _, errno := unix.RawSyscall(unix.SYS_WRITE, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(b))), uintptr(len(b)))
	return count(n, errno)
}

// Address is where a datagram goes, as the kernel wants it (ip(7), ipv6(7)).
type Address struct {
	raw  unix.RawSockaddrInet6 // the larger of the two
	size uintptr
}

// NewAddress returns the kernel's form of an address and port.
func NewAddress(to netip.AddrPort) *Address {
	a := new(Address)
	if to.Addr().Is4() {
		v4 := (*unix.RawSockaddrInet4)(unsafe.Pointer(&a.raw))
		v4.Family, v4.Port, v4.Addr = unix.AF_INET, networkOrder(to.Port()), to.Addr().As4()
		a.size = unix.SizeofSockaddrInet4
		return a
	}
	a.raw.Family, a.raw.Port, a.raw.Addr = unix.AF_INET6, networkOrder(to.Port()), to.Addr().As16()
	a.size = unix.SizeofSockaddrInet6
	return a
}

func networkOrder(port uint16) uint16 {
	return binary.NativeEndian.Uint16(binary.BigEndian.AppendUint16(nil, port))
}

// Send sends a datagram, or returns unix.EAGAIN or unix.ENOBUFS where the kernel has no room for it now.
func Send(fd int, b []byte, to *Address) error {
	_, _, errno := unix.RawSyscall6(unix.SYS_SENDTO, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(b))), uintptr(len(b)),
		unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL, uintptr(unsafe.Pointer(&to.raw)), to.size)
	_, err := count(0, errno)
	return err
}

// Receive reads a datagram from a socket that does not wait, and notes where it comes from.
func Receive(fd int, b []byte, from *Address) (int, error) {
	from.size = unsafe.Sizeof(from.raw)
	n, _, errno := unix.RawSyscall6(unix.SYS_RECVFROM, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(b))), uintptr(len(b)),
		unix.MSG_DONTWAIT, uintptr(unsafe.Pointer(&from.raw)), uintptr(unsafe.Pointer(&from.size)))
	return count(n, errno)
}

// AddrPort returns the address and port in Go's form.
func (a *Address) AddrPort() netip.AddrPort {
	if a.raw.Family == unix.AF_INET {
		v4 := (*unix.RawSockaddrInet4)(unsafe.Pointer(&a.raw))
		return netip.AddrPortFrom(netip.AddrFrom4(v4.Addr), networkOrder(v4.Port))
	}
	return netip.AddrPortFrom(netip.AddrFrom16(a.raw.Addr), networkOrder(a.raw.Port))
}

// Ready returns what an epoll descriptor has to tell at this moment.
func Ready(epoll int, events []unix.EpollEvent) (int, error) {
	n, _, errno := unix.RawSyscall6(unix.SYS_EPOLL_PWAIT, uintptr(epoll), uintptr(unsafe.Pointer(unsafe.SliceData(events))), uintptr(len(events)), 0, 0, 0)
	return count(n, errno)
}

// SetTimer makes a timerfd readable once, after d.
func SetTimer(fd int, d time.Duration) error {
	its := unix.ItimerSpec{Value: unix.NsecToTimespec(int64(d))}
	_, _, errno := unix.RawSyscall6(unix.SYS_TIMERFD_SETTIME, uintptr(fd), 0, uintptr(unsafe.Pointer(&its)), 0, 0, 0)
	_, err := count(0, errno)
	return err
}

// Clock reads one of the kernel's clocks, which exists, in nanoseconds (clock_gettime(2)).
func Clock(id int32) int64 {
	var ts unix.Timespec
	_, _, _ = unix.RawSyscall(unix.SYS_CLOCK_GETTIME, uintptr(id), uintptr(unsafe.Pointer(&ts)), 0)
	return ts.Nano()
}

func count(n uintptr, errno unix.Errno) (int, error) {
	if errno != 0 {
		return 0, errno
	}
	return int(n), nil
}
