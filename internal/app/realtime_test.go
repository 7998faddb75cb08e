package app

import (
	"runtime"
	"testing"

	"golang.org/x/sys/unix"
)

// Every thread gets a short slice, where the kernel has such a thing, and keeps class and nice value.
func TestShortSlices(t *testing.T) {
	runtime.LockOSThread() // never unlocked: the thread ends with the test
	before, err := unix.SchedGetAttr(0, 0)
	if err != nil {
		t.Fatal(err)
	}
	shortSlices()
	now, err := unix.SchedGetAttr(0, 0)
	if err != nil {
		t.Fatal(err)
	}
	if now.Policy != before.Policy || now.Nice != before.Nice {
		t.Errorf("the thread was under %+v and is under %+v", before, now)
	}
	if before.Runtime != 0 && now.Runtime != uint64(slice) { // 0: Linux before 6.12
		t.Errorf("the slice is %d ns, and was %d", now.Runtime, before.Runtime)
	}
}
