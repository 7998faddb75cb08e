package resource

import (
	"fmt"
	"os"
	"sync"
	"syscall"
	"time"

	"baton/internal/core/cluster"
)

// trialKept is for how long a trial's answer is good: a look at a thousand programs takes one for each user.
const trialKept = 500 * time.Millisecond

// nowhere is no program. The kernel looks for it once it has seen that the user may have one more process.
const nowhere = "/dev/null/none"

// trials are the last ones, by whom a program would run as.
var trials = struct {
	sync.Mutex
	last map[uint64]trial
}{last: make(map[uint64]trial)}

type trial struct {
	at  time.Time
	err error
}

// startable tells why this host can start no program for a user now: it has no process, memory or open file left, or the
// user has as many as he may. It forks, and executes nothing: a cold standby starts no program until it must.
func startable(owner account) error {
	key := uint64(owner.uid)<<32 | uint64(owner.gid)
	trials.Lock()
	defer trials.Unlock()
	if t, ok := trials.last[key]; ok && time.Since(t.at) < trialKept {
		return t.err
	}
	attr := &syscall.ProcAttr{Sys: &syscall.SysProcAttr{Setsid: true}}
	if os.Geteuid() == 0 || int(owner.uid) != os.Geteuid() {
		attr.Sys.Credential = &syscall.Credential{Uid: owner.uid, Gid: owner.gid, Groups: owner.groups}
	}
	_, err := syscall.ForkExec(nowhere, []string{nowhere}, attr)
	if !Exhausted(err) {
		err = nil
	} else {
		err = lacking(fmt.Errorf("no more processes can be started here: %w", err))
	}
	trials.last[key] = trial{time.Now(), err}
	return err
}

// Lacks implements Lacker: what Check asks for, and that programs can be started at all.
func (Process) Lacks(spec cluster.ResourceSpec) error {
	if err := checked(Process{}, spec); err != nil {
		return err
	}
	p := &process{env: Env{Spec: spec}}
	if err := p.configure(spec.Fields); err != nil {
		return err
	}
	owner, err := lookupAccount(p.user)
	if err != nil {
		return err
	}
	return startable(owner)
}
