package app

import (
	"context"
	"fmt"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	batonv1 "baton/api/v1"
	"baton/internal/io/api"
)

// tokenCmd is `baton token`.
type tokenCmd struct {
	Add    tokenAddCmd    `cmd:"" help:"Make a token, which lets its owner use the API from afar. It is printed once."`
	List   tokenListCmd   `cmd:"" help:"List the tokens, without their secrets."`
	Revoke tokenRevokeCmd `cmd:"" help:"Make a token worthless."`
}

// tokenAddCmd is `baton token add`.
type tokenAddCmd struct {
	Name string        `arg:"" help:"Who uses it."`
	Role string        `required:"" enum:"view,operate,admin" help:"view: see everything; operate: also move, start and stop groups; admin: also everything else." placeholder:"ROLE"`
	For  time.Duration `help:"How long it is valid (default: until it is revoked)." placeholder:"720h"`
}

// Run makes a token.
func (c *tokenAddCmd) Run(k *console) error {
	agent := k.agent()
	defer agent.Close()
	q := &batonv1.AddTokenRequest{Name: c.Name, Role: c.Role}
	if c.For != 0 {
		q.For = durationpb.New(c.For)
	}
	r, err := agent.Access.AddToken(k.ctx, q)
	switch {
	case err != nil:
		return k.trouble(err)
	case k.json:
		return k.outcomeJSON(r, r.Done)
	case !r.Done:
		return fail(exitFailed, r.Hint, "%s", r.Text)
	}
	fmt.Fprintf(k.err, "%s. Its secret is shown this once; who has it can use it. To use the cluster from another machine, type there:\n", r.Text)
	fmt.Fprintf(k.out, "baton context add %s %s --authority %s --token %s\n", r.Cluster, strings.Join(r.Addresses, " "), r.Authority, r.Token)
	return nil
}

// tokenListCmd is `baton token list`.
type tokenListCmd struct{}

// Run lists the tokens.
func (c *tokenListCmd) Run(k *console) error {
	agent := k.agent()
	defer agent.Close()
	r, err := agent.Access.ListTokens(k.ctx, &batonv1.ListTokensRequest{})
	switch {
	case err != nil:
		return k.trouble(err)
	case k.json:
		return k.printJSON(r)
	case len(r.Tokens) == 0:
		fmt.Fprintln(k.err, "there is no token")
		return nil
	}
	rows := [][]cell{heading("token", "role", "valid", "made by")}
	for _, t := range r.Tokens {
		valid := cell{text: "until revoked"}
		if t.Until != nil {
			valid.text = "until " + t.Until.AsTime().Local().Format(time.DateTime)
		}
		if t.Expired {
			valid = cell{text: "expired", colour: yellow}
		}
		rows = append(rows, []cell{{text: t.Name}, {text: t.Role}, valid, {text: t.By}})
	}
	k.paint.table(k.out, rows)
	return nil
}

// tokenRevokeCmd is `baton token revoke`.
type tokenRevokeCmd struct {
	Name string `arg:"" help:"The token."`
}

// Run revokes a token.
func (c *tokenRevokeCmd) Run(k *console) error {
	agent := k.agent()
	defer agent.Close()
	r, err := agent.Access.RevokeToken(k.ctx, &batonv1.RevokeTokenRequest{Name: c.Name})
	if err != nil {
		return k.trouble(err)
	}
	return k.conclude(r, r.Done)
}

// lookAt asks an agent for its status, and does not wait long.
func lookAt(ctx context.Context, agent *api.Client) (*batonv1.StatusResponse, error) {
	ctx, cancel := context.WithTimeout(ctx, lookTimeout)
	defer cancel()
	return agent.Status(ctx, &batonv1.StatusRequest{})
}

const lookTimeout = 5 * time.Second

// keyCmd is `baton key`.
type keyCmd struct {
	Rotate keyRotateCmd `cmd:"" help:"Give the cluster a new key, without a pause; or go on with a change that was stopped."`
}

// keyRotateCmd is `baton key rotate`.
type keyRotateCmd struct {
	Without []string `help:"Leave a node behind that can't be reached: it must join again." placeholder:"NODE"`
}

// Run changes the key.
func (c *keyRotateCmd) Run(k *console) error {
	agent := k.agent()
	defer agent.Close()
	r, err := agent.Access.RotateKey(k.ctx, &batonv1.RotateKeyRequest{Without: c.Without})
	if err != nil {
		return k.trouble(err)
	}
	if k.json {
		return k.outcomeJSON(r, r.Done)
	}
	for _, step := range r.Did {
		fmt.Fprintln(k.err, "  "+step)
	}
	if !r.Done {
		return fail(exitFailed, r.Hint, "%s", r.Text)
	}
	fmt.Fprintf(k.out, "%s\n", r.Text)
	fmt.Fprintf(k.err, "who uses the cluster from afar must believe its new authority: baton context add … --authority %s\n", r.Authority)
	if r.Hint != "" {
		fmt.Fprintln(k.err, "hint: "+r.Hint)
	}
	return nil
}
