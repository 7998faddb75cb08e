package trial

import (
	"context"
	"fmt"
	"os"
	"strings"
	"time"
)

const (
	placeTries = 12 // to get coordination to where a run wants it
	tailLines  = 12 // of each agent's log in an error
)

// steady waits until every node that is on agrees that the group serves, that the other member stands by
// and who coordinates, and returns the group and the coordinator.
func (b *bench) steady(ctx context.Context) (GroupStatus, string, error) {
	deadline := time.Now().Add(steadyLimit)
	for {
		g, coordinator, why := b.look()
		if why == "" {
			return g, coordinator, nil
		}
		if time.Now().After(deadline) {
			return g, coordinator, fmt.Errorf("the cluster is not steady within %v: %s", steadyLimit, why)
		}
		if err := pause(ctx, pollPause); err != nil {
			return g, coordinator, err
		}
	}
}

// look says why the cluster is not steady; "": it is.
func (b *bench) look() (g GroupStatus, coordinator, why string) {
	for _, name := range Nodes {
		if !b.trial.Host(name).On() {
			continue
		}
		s, err := b.trial.Status(name)
		if err != nil {
			return g, "", err.Error()
		}
		its := s.Group()
		switch {
		case s.Coordinator == "" || !s.Quorum:
			return its, "", name + " knows no coordinator"
		case its.Owner == "" || !its.Serving:
			return its, "", fmt.Sprintf("%s says that %s does not serve: %+v", name, Group, its)
		case its.Next != otherMember(its.Owner):
			return its, "", fmt.Sprintf("%s says that %s is not ready to take over: %+v", name, otherMember(its.Owner), its)
		case coordinator != "" && (g.Owner != its.Owner || g.Epoch != its.Epoch || coordinator != s.Coordinator):
			return its, "", fmt.Sprintf("%s sees %+v under %s, others %+v under %s", name, its, s.Coordinator, g, coordinator)
		}
		g, coordinator = its, s.Coordinator
	}
	return g, coordinator, ""
}

func otherMember(name string) string {
	if name == Beta {
		return Alpha
	}
	return Beta
}

// settle makes the cluster steady and as the run's fault wants it.
func (b *bench) settle(ctx context.Context, r *run) error {
	g, coordinator, err := b.steady(ctx)
	if err != nil {
		return fmt.Errorf("before the fault: %w", err)
	}
	r.owner, r.other = g.Owner, otherMember(g.Owner)
	if b.second {
		if err := b.keepBusy(ctx, r.other); err != nil {
			return err
		}
	}
	wanted := func(c string) bool { return (c == r.owner) == r.fault.coordinator }
	// Left alone, coordination moves to a member that serves nothing when that is so for twice the lease.
	for deadline := time.Now().Add(4 * r.takeover); !b.second && coordinator != r.other && time.Now().Before(deadline); {
		if err := pause(ctx, pollPause); err != nil {
			return err
		}
		if g, coordinator, err = b.steady(ctx); err != nil {
			return err
		}
	}
	for try := 0; !wanted(coordinator); try++ {
		if try == placeTries {
			return fmt.Errorf("coordination stays on %s after %d elections: wanted on the active node %s: %v", coordinator, try, r.owner, r.fault.coordinator)
		}
		if g, coordinator, err = b.elect(ctx, coordinator, r.takeover); err != nil {
			return err
		}
	}
	if g.Owner != r.owner {
		return fmt.Errorf("%s moved from %s to %s without a fault", Group, r.owner, g.Owner)
	}
	r.epoch, r.coordinator = g.Epoch, coordinator
	return nil
}

// elect makes the others elect a coordinator: it stops the present one for longer than they wait for it
// (half a lease) and shorter than it takes to be found dead (nine tenths). A lease is most of a budget.
func (b *bench) elect(ctx context.Context, coordinator string, takeover time.Duration) (GroupStatus, string, error) {
	p := b.trial.Agent(coordinator).Process()
	if err := p.Freeze(); err != nil {
		return GroupStatus{}, "", err
	}
	time.Sleep(takeover * 6 / 10)
	if err := p.Thaw(); err != nil {
		return GroupStatus{}, "", err
	}
	if err := pause(ctx, takeover/2); err != nil {
		return GroupStatus{}, "", err
	}
	return b.steady(ctx)
}

// keepBusy gets the second group onto the standby.
func (b *bench) keepBusy(ctx context.Context, standby string) error {
	deadline := time.Now().Add(steadyLimit)
	for {
		s, err := b.trial.Status(standby)
		var owner string
		if err == nil {
			for _, g := range s.Groups {
				if g.Name == secondName && g.Serving {
					owner = g.Owner
				}
			}
			if owner == standby {
				return nil
			}
			if owner != "" {
				err = b.move(ctx, standby, secondName, standby)
			}
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("the second group does not serve on %s within %v: %+v, %w", standby, steadyLimit, s, err)
		}
		if err := pause(ctx, pollPause); err != nil {
			return err
		}
	}
}

// describe adds to an error what the agents said last.
func (b *bench) describe(err error) string {
	text := err.Error()
	if b.trial == nil {
		return text
	}
	for _, name := range Nodes {
		log, _ := os.ReadFile(b.trial.Host(name).LogPath("agent"))
		lines := strings.Split(strings.TrimSpace(string(log)), "\n")
		lines = lines[max(0, len(lines)-tailLines):]
		text += fmt.Sprintf("\n  %s's agent said last:\n    %s", name, strings.Join(lines, "\n    "))
	}
	return text
}
