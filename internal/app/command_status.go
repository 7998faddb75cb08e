package app

import (
	"context"
	"fmt"
	"strings"
	"time"

	batonv1 "baton/api/v1"
	"baton/internal/io/api"
)

// statusCmd is `baton status`.
type statusCmd struct {
	Watch   bool          `short:"w" xor:"mode" help:"Go on showing it until q or Ctrl-C."`
	Wait    bool          `xor:"mode" help:"Wait until the cluster is formed, has a quorum, and every group serves."`
	Timeout time.Duration `default:"1m" help:"How long --wait waits." placeholder:"1m"`
}

const (
	pollEvery  = 200 * time.Millisecond // of --wait
	retryEvery = time.Second            // of --watch, while there is no agent
)

// Run shows the status.
func (c *statusCmd) Run(k *console) error {
	agent := k.agent()
	defer agent.Close()
	switch {
	case c.Watch && k.json:
		return watchJSON(k, agent)
	case c.Watch:
		return watch(k, agent)
	case c.Wait:
		return c.wait(k, agent)
	}
	s, err := agent.Status(k.ctx, &batonv1.StatusRequest{})
	if err != nil {
		return k.trouble(err)
	}
	return k.printStatus(s)
}

func (k *console) printStatus(s *batonv1.StatusResponse) error {
	if k.json {
		return k.printJSON(s)
	}
	statusView{k.paint, s}.write(k.out)
	return nil
}

// missing tells what a cluster lacks to serve as it should; empty: nothing.
func missing(s *batonv1.StatusResponse) string {
	switch {
	case s.Left != "":
		return s.Left
	case s.Joining:
		return s.Node + " joins: " + s.Forming
	case s.Forming != "":
		return "the cluster forms: " + s.Forming
	case !s.Quorum:
		return "no majority of the voters is heard"
	case s.Coordinator == "":
		return "no coordinator is known"
	}
	var out []string
	for _, g := range s.Groups {
		switch {
		case g.Move != nil:
			out = append(out, g.Name+" moves to "+g.Move.To)
		case g.Degraded != "":
			out = append(out, g.Name+" is degraded: "+g.Degraded)
		case !g.Serving && !stopped(s, g.Name):
			out = append(out, g.Name+" is not served")
		}
	}
	return strings.Join(out, ", ")
}

// wait asks again and again until nothing is missing. An agent that starts meanwhile is waited for too.
func (c *statusCmd) wait(k *console, agent *api.Client) error {
	ctx, cancel := context.WithTimeout(k.ctx, c.Timeout)
	defer cancel()
	var last error
	said := ""
	for {
		s, err := agent.Status(ctx, &batonv1.StatusRequest{})
		if err == nil {
			lacks := missing(s)
			if lacks == "" {
				return k.printStatus(s)
			}
			last = fail(exitFailed, "baton status shows more", "not there after %v: %s", c.Timeout, lacks)
			if k.progress && lacks != said {
				said = lacks
				fmt.Fprintln(k.err, lacks)
			}
		} else if t := api.Explain(err); !t.Unreached && ctx.Err() == nil {
			return k.trouble(err)
		} else if ctx.Err() == nil || last == nil {
			last = k.trouble(err)
		}
		select {
		case <-ctx.Done():
			if k.ctx.Err() != nil {
				return fail(exitFailed, "", "interrupted")
			}
			return last
		case <-time.After(pollEvery):
		}
	}
}

// watchJSON prints each status as one line.
func watchJSON(k *console, agent *api.Client) error {
	stream, err := agent.Watch(k.ctx, &batonv1.WatchRequest{})
	if err != nil {
		return k.trouble(err)
	}
	defer stream.Close()
	for stream.Receive() {
		text, err := jsonOf(stream.Msg())
		if err != nil {
			return err
		}
		if _, err := fmt.Fprintf(k.out, "%s\n", text); err != nil {
			return err
		}
	}
	if k.ctx.Err() != nil {
		return nil // that is how it ends
	}
	if stream.Err() == nil {
		return fail(exitUnreached, "", "the agent ended")
	}
	return k.trouble(stream.Err())
}
