package nowait

import (
	"errors"
	"net/netip"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// What is sent to an address of either family arrives; where nothing is left, Read says so.
func TestSend(t *testing.T) {
	for _, address := range []string{"127.0.0.1:0", "[::1]:0"} {
		fd, to := listening(t, netip.MustParseAddrPort(address))
		if err := Send(fd, []byte("hello"), NewAddress(to)); err != nil {
			t.Fatalf("send to %s: %v", to, err)
		}
		buffer := make([]byte, 16)
		if n, err := Read(fd, buffer); err != nil || string(buffer[:n]) != "hello" {
			t.Errorf("over %s came %q, %v", to, buffer[:n], err)
		}
		if _, err := Read(fd, buffer); !errors.Is(err, unix.EAGAIN) {
			t.Errorf("an empty socket says %v", err)
		}
		if err := Send(fd, make([]byte, 1<<17), NewAddress(to)); !errors.Is(err, unix.EMSGSIZE) {
			t.Errorf("a datagram that is too large: %v", err)
		}
	}
}

// listening returns a socket that does not wait, and its address.
func listening(t *testing.T, address netip.AddrPort) (int, netip.AddrPort) {
	t.Helper()
	domain, sa := unix.AF_INET6, unix.Sockaddr(&unix.SockaddrInet6{Addr: address.Addr().As16()})
	if address.Addr().Is4() {
		domain, sa = unix.AF_INET, &unix.SockaddrInet4{Addr: address.Addr().As4()}
	}
	fd, err := unix.Socket(domain, unix.SOCK_DGRAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Close(fd) })
	if err := unix.Bind(fd, sa); err != nil {
		t.Fatal(err)
	}
	bound, err := unix.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	port := 0
	switch b := bound.(type) {
	case *unix.SockaddrInet4:
		port = b.Port
	case *unix.SockaddrInet6:
		port = b.Port
	}
	return fd, netip.AddrPortFrom(address.Addr(), uint16(port))
}

// A timer makes itself heard through an epoll descriptor, not before its time.
func TestTimer(t *testing.T) {
	timer, err := unix.TimerfdCreate(unix.CLOCK_MONOTONIC, unix.TFD_NONBLOCK|unix.TFD_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(timer)
	epoll, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(epoll)
	if err := unix.EpollCtl(epoll, unix.EPOLL_CTL_ADD, timer, &unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(timer)}); err != nil {
		t.Fatal(err)
	}
	began := Clock(unix.CLOCK_MONOTONIC)
	if err := SetTimer(timer, 20*time.Millisecond); err != nil {
		t.Fatal(err)
	}
	var events [2]unix.EpollEvent
	for {
		n, err := Ready(epoll, events[:])
		if err != nil {
			t.Fatal(err)
		}
		if n == 1 {
			break
		}
		time.Sleep(time.Millisecond)
	}
	if took := time.Duration(Clock(unix.CLOCK_MONOTONIC) - began); took < 20*time.Millisecond {
		t.Errorf("a timer of 20 ms was ready after %v", took)
	}
	if events[0].Fd != int32(timer) {
		t.Errorf("descriptor %d is ready, not %d", events[0].Fd, timer)
	}
}

// What a descriptor that is told of holds is read and written.
func TestWrite(t *testing.T) {
	fd, err := unix.Eventfd(0, unix.EFD_NONBLOCK|unix.EFD_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	if n, err := Write(fd, []byte{1, 0, 0, 0, 0, 0, 0, 0}); n != 8 || err != nil {
		t.Fatalf("wrote %d bytes: %v", n, err)
	}
	var b [8]byte
	if n, err := Read(fd, b[:]); n != 8 || err != nil || b[0]+b[7] != 1 {
		t.Errorf("read %v, %d bytes: %v", b, n, err)
	}
	if _, err := Write(-1, b[:]); !errors.Is(err, unix.EBADF) {
		t.Errorf("a descriptor that is none: %v", err)
	}
}
