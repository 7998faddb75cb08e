package gate

import (
	"errors"
	"fmt"
	"sync"

	"baton/internal/core/cluster"
)

// relief is a gate whose predecessor used the other mechanism: after a change of Options.Prefer, or
// when bpf() became possible. Until its first Guard the predecessor's gate goes on, and Set and Left
// work on that; Guard sets up the new one with the same deadlines, then removes the old.
type relief struct {
	Gate
	mu     sync.Mutex
	former Gate // nil once removed
}

func relieve(g Gate, opts Options, left func(Options) bool, open func(Options) (Gate, error)) (Gate, error) {
	if !left(opts) {
		return g, nil
	}
	former, err := open(opts)
	if err != nil {
		g.Close()
		return nil, fmt.Errorf("open gate: take over from a predecessor that used another mechanism: %w", err)
	}
	return &relief{Gate: g, former: former}, nil
}

func (r *relief) Guard(groups []Group) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.former == nil {
		return r.Gate.Guard(groups)
	}
	left, err := r.former.Left()
	if err != nil {
		return err
	}
	if err := r.Gate.Guard(groups); err != nil {
		return err
	}
	for _, s := range left {
		// A group that is no longer named is unknown now; one without an epoch was never open.
		if err := r.Gate.Set(s.Group, s.Epoch, s.Deadline); err != nil && !errors.Is(err, ErrUnknownGroup) {
			return err
		}
	}
	if err := r.former.Remove(); err != nil {
		return err
	}
	r.former = nil
	return nil
}

func (r *relief) inUse() Gate {
	if r.former != nil {
		return r.former
	}
	return r.Gate
}

func (r *relief) Set(group cluster.GroupID, epoch cluster.Epoch, deadlineBoottime int64) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.inUse().Set(group, epoch, deadlineBoottime)
}

func (r *relief) Left() ([]State, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.inUse().Left()
}

func (r *relief) Close() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.former == nil {
		return r.Gate.Close()
	}
	return errors.Join(r.former.Close(), r.Gate.Close())
}

func (r *relief) Remove() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.former == nil {
		return r.Gate.Remove()
	}
	return errors.Join(r.former.Remove(), r.Gate.Remove())
}
