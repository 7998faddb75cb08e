package app

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	batonv1 "baton/api/v1"
	"baton/internal/core/config"
	"baton/internal/io/api"
	"baton/internal/io/bounded"
)

// applyFlags are those of every command that changes the configuration.
type applyFlags struct {
	DryRun    bool   `help:"Only say what would happen."`
	Yes       bool   `short:"y" help:"Do not ask."`
	Comment   string `short:"m" help:"Why, for the history." placeholder:"TEXT"`
	NoWait    bool   `help:"Return once the change has begun."`
	Unchecked bool   `help:"Go on though a node that runs could not be asked whether it can take the file."`
}

// applyCmd is `baton apply`.
type applyCmd struct {
	File string `arg:"" help:"The new cluster file."`
	Base uint64 `help:"The revision that the file was made from (default: the present one; of this node's own file, the one that it was last)." placeholder:"REVISION"`
	applyFlags
}

// Run makes the file the cluster's configuration.
func (c *applyCmd) Run(k *console) error {
	text, err := bounded.ReadFile(c.File, bounded.ClusterFile)
	if err != nil {
		return fail(exitUsage, "name another one: baton apply FILE", "read the cluster file %s: %s", c.File, plainCause(err))
	}
	if _, err := config.Parse(c.File, text, Kinds()); err != nil {
		return err
	}
	agent := k.agent()
	defer agent.Close()
	base := c.Base
	if base == 0 {
		if base, err = k.baseOf(agent, c.File); err != nil {
			return err
		}
	}
	return k.apply(agent, c.applyFlags, &batonv1.ApplyRequest{Text: string(text), BaseRevision: base})
}

// baseOf returns the revision that a file was made from, where the agent knows: of the node's own file.
// What was applied since must not be undone unseen.
func (k *console) baseOf(agent *api.Client, file string) (uint64, error) {
	r, err := agent.Config.GetConfig(k.ctx, &batonv1.GetConfigRequest{})
	if err != nil {
		return 0, k.trouble(err)
	}
	whole, err := filepath.Abs(file)
	if err != nil || whole != r.File {
		return r.Revision.GetRevision(), nil
	}
	return r.FileBase, nil
}

// apply shows what a change does, asks, and carries it out.
func (k *console) apply(agent *api.Client, f applyFlags, r *batonv1.ApplyRequest) error {
	if k.json && !f.Yes && !f.DryRun {
		return fail(exitUsage, "add --yes or --dry-run", "--json asks nothing, and the change was not agreed to")
	}
	r.Comment, r.Unchecked, r.DryRun = f.Comment, f.Unchecked, true
	would, err := agent.Config.Apply(k.ctx, r)
	if err != nil {
		return k.trouble(err)
	}
	if !k.json {
		k.showChange(would)
	}
	// Of nodes that could not be asked, whoever agrees to the change decides.
	asks := !would.Done && !f.DryRun && !f.Yes && onlyUnreached(would.Problems)
	if f.DryRun || (!would.Done && !asks) || len(would.Changes) == 0 {
		return k.outcomeOf(would, f.DryRun)
	}
	if !f.Yes {
		question := fmt.Sprintf("Make it revision %d?", would.Revision)
		if asks {
			question = "Make it revision " + strconv.FormatUint(would.Revision, 10) + " all the same?"
		}
		if !k.agreed(question) {
			return fail(exitFailed, "answer y, or add --yes", "nothing was changed")
		}
	}
	r.DryRun, r.NoWait, r.BaseRevision, r.Unchecked = false, f.NoWait, would.BaseRevision, f.Unchecked || asks
	if !f.NoWait && k.progress && !k.json {
		defer k.tellWaits(agent)()
	}
	done, err := agent.Config.Apply(k.ctx, r)
	if err != nil {
		if k.ctx.Err() != nil {
			return fail(exitFailed, "the change goes on if it had begun: baton config history, or give it up with baton config drop", "interrupted")
		}
		return k.trouble(err)
	}
	return k.outcomeOf(done, false)
}

func onlyUnreached(problems []*batonv1.Problem) bool {
	for _, p := range problems {
		if !p.Unreached {
			return false
		}
	}
	return len(problems) > 0
}

// showChange prints what a change is, what it does, and what is in its way.
func (k *console) showChange(a *batonv1.ApplyResponse) {
	if len(a.Changes) > 0 {
		fmt.Fprintf(k.out, "Changes against revision %d:\n", a.BaseRevision)
		for _, line := range a.Changes {
			fmt.Fprintln(k.out, "  "+line)
		}
	}
	if len(a.Effects) > 0 {
		fmt.Fprintln(k.out, "What it does:")
		for _, e := range a.Effects {
			fmt.Fprintln(k.out, "  "+k.effect(e))
		}
	}
	for _, p := range a.Problems {
		k.showProblem(p)
	}
}

// effect says in one line what a change does.
func (k *console) effect(e *batonv1.Effect) string {
	kind := e.Kind
	if kind == "none" {
		kind = "-"
	}
	c := map[string]colour{"stop": red, "move": yellow, "restart": yellow, "leave": red, "start": green, "join": green}[e.Kind]
	subject := e.Group
	if subject == "" {
		subject = e.Node
	}
	text := e.Text
	if subject != "" {
		text = subject + ": " + text
	}
	return k.paint.text(c, fmt.Sprintf("%-8s", kind)) + text
}

func (k *console) showProblem(p *batonv1.Problem) {
	who := ""
	if p.Node != "" {
		who = p.Node + ": "
	}
	word, c := "problem: ", red
	if p.Unreached {
		word, c = "unchecked: ", yellow
	}
	fmt.Fprintln(k.err, k.paint.text(c, word)+who+p.Text)
	if p.Hint != "" {
		fmt.Fprintln(k.err, "hint: "+p.Hint)
	}
}

// outcomeOf ends a command that changes the configuration.
func (k *console) outcomeOf(a *batonv1.ApplyResponse, dry bool) error {
	good := a.Done || a.UnderWay
	if dry && good && !k.json && len(a.Changes) > 0 {
		fmt.Fprintf(k.out, "%s; nothing was changed\n", a.Text)
		return nil
	}
	return k.conclude(a, good)
}

// agreed asks a question that is answered by y or n. Nobody to answer means no.
func (k *console) agreed(question string) bool {
	fmt.Fprintf(k.out, "%s [y/N] ", question)
	line, err := k.readLine()
	if err != nil && line == "" {
		fmt.Fprintln(k.out)
		return false
	}
	answer := strings.ToLower(strings.TrimSpace(line))
	return answer == "y" || answer == "yes"
}

// answerEvery is how often a question looks whether it was interrupted.
const answerEvery = 100 // milliseconds

// readLine reads one line of what is typed. It ends with the context: a read of its own would not.
func (k *console) readLine() (string, error) {
	if k.typed == nil {
		k.typed = bufio.NewReader(k.in)
	}
	file, isFile := k.in.(*os.File)
	for isFile && k.typed.Buffered() == 0 {
		ready, err := unix.Poll([]unix.PollFd{{Fd: int32(file.Fd()), Events: unix.POLLIN}}, answerEvery)
		if k.ctx.Err() != nil {
			return "", k.ctx.Err()
		}
		if ready > 0 || err != nil && !errors.Is(err, unix.EINTR) {
			break
		}
	}
	line, err := bounded.ReadLine(k.typed, bounded.Typed)
	return string(line), err
}

// waitsEvery is how often is asked what a change waits for.
const waitsEvery = 500 * time.Millisecond

// tellWaits tells on err for what a change waits, each time that changes, until the function that it
// returns is called.
func (k *console) tellWaits(agent *api.Client) (stop func()) {
	ctx, cancel := context.WithCancel(k.ctx)
	var teller sync.WaitGroup
	teller.Go(func() {
		last := ""
		for {
			select {
			case <-ctx.Done():
				return
			case <-time.After(waitsEvery):
			}
			r, err := agent.Config.GetConfig(ctx, &batonv1.GetConfigRequest{})
			if err != nil {
				continue // whoever asks for the change is told
			}
			if waits := r.Draft.GetWaits(); waits != last && waits != "" {
				fmt.Fprintln(k.err, "  "+waits)
				last = waits
			}
		}
	})
	return func() { cancel(); teller.Wait() }
}

// configCmd is `baton config`.
type configCmd struct {
	Show     configShowCmd     `cmd:"" help:"Print the cluster file that counts, or another revision."`
	Diff     configDiffCmd     `cmd:"" help:"Tell how two revisions differ, or a file and the revision that counts."`
	History  configHistoryCmd  `cmd:"" help:"List the revisions: who changed what, when and why."`
	Rollback configRollbackCmd `cmd:"" help:"Make a former revision's text the next revision."`
	Drop     configDropCmd     `cmd:"" help:"Give up the change that is under way: what counts stays."`
	Restore  configRestoreCmd  `cmd:"" help:"Write the cluster file that counts over this node's own, which is kept."`
	Schema   configSchemaCmd   `cmd:"" help:"Print the JSON Schema of the cluster file, for editors."`
}

// configShowCmd is `baton config show`.
type configShowCmd struct {
	Revision uint64 `arg:"" optional:"" help:"Default: the one that counts."`
}

// Run prints the text as it is.
func (c *configShowCmd) Run(k *console) error {
	agent := k.agent()
	defer agent.Close()
	r, err := agent.Config.GetConfig(k.ctx, &batonv1.GetConfigRequest{Revision: c.Revision})
	if err != nil {
		return k.trouble(err)
	}
	if k.json {
		return k.printJSON(r)
	}
	_, err = fmt.Fprint(k.out, r.Text)
	return err
}

// configDiffCmd is `baton config diff`.
type configDiffCmd struct {
	From string `arg:"" optional:"" name:"a" help:"A revision or a file (default: the revision before the one that counts; if this node's own file differs, the one that counts)."`
	To   string `arg:"" optional:"" name:"b" help:"A revision or a file (default: the one that counts; if A is left out too and this node's own file differs, that file)."`
}

// side is one side of a comparison.
type side struct {
	Name string `json:"name"`
	text string
}

// Run compares two texts.
func (c *configDiffCmd) Run(k *console) error {
	agent := k.agent()
	defer agent.Close()
	a, b, err := c.sides(k, agent)
	if err != nil {
		return err
	}
	changes := compareTexts([]byte(a.text), []byte(b.text))
	if k.json {
		return k.printJSON(struct {
			From    side     `json:"from"`
			To      side     `json:"to"`
			Changes []string `json:"changes"`
		}{a, b, append([]string{}, changes...)})
	}
	if a.text == b.text {
		fmt.Fprintf(k.out, "%s and %s are the same\n", a.Name, b.Name)
		return nil
	}
	fmt.Fprintf(k.out, "From %s to %s:\n", a.Name, b.Name)
	for _, line := range changes {
		fmt.Fprintln(k.out, "  "+line)
	}
	fmt.Fprint(k.out, "\n"+k.paint.hunks(a.text, b.text))
	return nil
}

func (c *configDiffCmd) sides(k *console, agent *api.Client) (a, b side, err error) {
	current, err := agent.Config.GetConfig(k.ctx, &batonv1.GetConfigRequest{})
	if err != nil {
		return a, b, k.trouble(err)
	}
	present := side{revisionName(current.Revision), current.Text}
	switch {
	case c.To != "":
		if b, err = k.side(agent, c.To); err != nil {
			return a, b, err
		}
	case c.From == "" && current.Drift != nil:
		if b, err = fileSide(current.File); err == nil {
			return present, b, nil
		}
		b = present // the file can't be read here
	case c.From != "" && !isRevision(c.From):
		b, err = fileSide(c.From)
		return present, b, err
	default:
		b = present
	}
	from := c.From
	if from == "" {
		if current.Revision.Revision == 1 {
			return a, b, fail(exitFailed, "baton config show", "revision 1 is the first: there is nothing before it")
		}
		from = strconv.FormatUint(current.Revision.Revision-1, 10)
	}
	a, err = k.side(agent, from)
	return a, b, err
}

func isRevision(name string) bool {
	_, err := strconv.ParseUint(name, 10, 64)
	return err == nil
}

// side reads a revision, or a file.
func (k *console) side(agent *api.Client, name string) (side, error) {
	n, err := strconv.ParseUint(name, 10, 64)
	if err != nil {
		return fileSide(name)
	}
	r, err := agent.Config.GetConfig(k.ctx, &batonv1.GetConfigRequest{Revision: n})
	if err != nil {
		return side{}, k.trouble(err)
	}
	return side{revisionName(r.Revision), r.Text}, nil
}

func fileSide(name string) (side, error) {
	text, err := bounded.ReadFile(name, bounded.ClusterFile)
	if err != nil {
		return side{}, fail(exitUsage, "name a revision, which is a number, or a file", "read %s: %s", name, plainCause(err))
	}
	return side{name, string(text)}, nil
}

func revisionName(r *batonv1.Revision) string { return fmt.Sprintf("revision %d", r.Revision) }

// configHistoryCmd is `baton config history`.
type configHistoryCmd struct{}

// Run lists the revisions, newest last.
func (c *configHistoryCmd) Run(k *console) error {
	agent := k.agent()
	defer agent.Close()
	r, err := agent.Config.ListRevisions(k.ctx, &batonv1.ListRevisionsRequest{})
	if err != nil {
		return k.trouble(err)
	}
	if k.json {
		return k.printJSON(r)
	}
	for _, one := range r.Revisions {
		head := fmt.Sprintf("%d  %s  %s", one.Revision, one.Time.AsTime().Local().Format("2006-01-02 15:04:05"), one.By)
		if one.Current {
			head += k.paint.text(green, "  (counts now)")
		}
		fmt.Fprintln(k.out, k.paint.text(bold, head))
		if one.Comment != "" {
			fmt.Fprintln(k.out, "   “"+one.Comment+"”")
		}
		for _, line := range one.Changes {
			fmt.Fprintln(k.out, "   "+line)
		}
	}
	return nil
}

// configRollbackCmd is `baton config rollback`.
type configRollbackCmd struct {
	Revision uint64 `arg:"" optional:"" help:"The revision to go back to (default: the one before the present)."`
	applyFlags
}

// Run applies the former text anew.
func (c *configRollbackCmd) Run(k *console) error {
	agent := k.agent()
	defer agent.Close()
	current, err := agent.Config.GetConfig(k.ctx, &batonv1.GetConfigRequest{})
	if err != nil {
		return k.trouble(err)
	}
	now := current.Revision.Revision
	if c.Revision == 0 {
		if now == 1 {
			return fail(exitFailed, "baton config show", "revision 1 is the first: there is nothing to go back to")
		}
		c.Revision = now - 1
	}
	former, err := agent.Config.GetConfig(k.ctx, &batonv1.GetConfigRequest{Revision: c.Revision})
	if err != nil {
		return k.trouble(err)
	}
	if c.Comment == "" {
		c.Comment = fmt.Sprintf("rollback to revision %d", c.Revision)
	}
	return k.apply(agent, c.applyFlags, &batonv1.ApplyRequest{Text: former.Text, BaseRevision: now})
}

// configDropCmd is `baton config drop`.
type configDropCmd struct{}

// Run gives up the draft.
func (c *configDropCmd) Run(k *console) error {
	agent := k.agent()
	defer agent.Close()
	r, err := agent.Config.DropDraft(k.ctx, &batonv1.DropDraftRequest{})
	if err != nil {
		return k.trouble(err)
	}
	return k.conclude(r, r.Done)
}

// configRestoreCmd is `baton config restore`.
type configRestoreCmd struct{}

// Run has the agent write its file anew.
func (c *configRestoreCmd) Run(k *console) error {
	agent := k.agent()
	defer agent.Close()
	r, err := agent.Config.Restore(k.ctx, &batonv1.RestoreRequest{})
	if err != nil {
		return k.trouble(err)
	}
	if k.json {
		return k.printJSON(r)
	}
	fmt.Fprintf(k.out, "%s is revision %d\n", r.File, r.Revision)
	if r.Copy != "" {
		fmt.Fprintf(k.out, "what stood there is in %s\n", r.Copy)
	}
	return nil
}

// configSchemaCmd is `baton config schema`.
type configSchemaCmd struct{}

// Run prints the schema.
func (c *configSchemaCmd) Run(k *console) error {
	text, err := config.Schema(Kinds())
	if err != nil {
		return err
	}
	_, err = k.out.Write(text)
	return err
}
