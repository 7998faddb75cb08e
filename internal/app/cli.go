package app

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"

	"connectrpc.com/connect"
	"github.com/alecthomas/kong"
	"golang.org/x/term"

	"baton/internal/core/config"
	"baton/internal/io/api"
	"baton/internal/io/identity"
)

// Exit codes of every command.
const (
	exitDone      = 0 // done
	exitFailed    = 1 // refused, or failed
	exitUsage     = 2 // bad usage, or a bad file
	exitUnreached = 3 // no agent was reached
	exitWaits     = 4 // it waits for an approval; nothing does in this version
	exitLeft      = 5 // of the agent: this node has left the cluster, and is not to be started again
)

// version is set by the linker for a release (-X baton/internal/app.version=1.2.3).
var version string

// Version names the version of this binary.
func Version() string {
	if version != "" {
		return version
	}
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, s := range info.Settings {
			if s.Key == "vcs.revision" && len(s.Value) >= 12 {
				return "devel-" + s.Value[:12]
			}
		}
	}
	return "devel"
}

// defaultSocket is where the agent listens if nothing else is said.
const defaultSocket = "/run/baton/agent.sock"

// commands is the command line. Kong reads it.
type commands struct {
	JSON   bool   `name:"json" help:"Print JSON, in a shape that stays."`
	Socket string `help:"The agent's socket." env:"BATON_SOCKET" default:"/run/baton/agent.sock" placeholder:"PATH"`
	// Address and ContextName choose an agent elsewhere.
	Address     string `help:"An agent elsewhere, with the token and authority of the context, or of BATON_TOKEN and BATON_AUTHORITY." placeholder:"HOST[:PORT]"`
	ContextName string `name:"context" help:"A cluster elsewhere, as baton context added it." env:"BATON_CONTEXT" placeholder:"NAME"`

	Agent      agentCmd      `cmd:"" help:"Run this node."`
	Dev        devCmd        `cmd:"" help:"Run a whole cluster on this machine, to try it."`
	Status     statusCmd     `cmd:"" help:"Show nodes, groups, leases, epochs, and who would take over."`
	Switch     switchCmd     `cmd:"" help:"Move a group to another node, on purpose."`
	Failback   failbackCmd   `cmd:"" help:"Move a group back to its preferred node."`
	Start      startCmd      `cmd:"" help:"Start a group that was stopped, or one resource of it."`
	Stop       stopCmd       `cmd:"" help:"Stop a group everywhere, or one resource of it on its node; it stays so until it is started."`
	Restart    restartCmd    `cmd:"" help:"Stop and start a group, or one resource of it, on its node, without a failover."`
	Clear      clearCmd      `cmd:"" help:"Forget the failures of a group, or of one resource of it: bans and restarts."`
	Pause      pauseCmd      `cmd:"" help:"Watch a group, or all, but do not act: nobody takes over."`
	Resume     resumeCmd     `cmd:"" help:"End a pause."`
	Pin        pinCmd        `cmd:"" help:"Keep a group on a node: it runs there or nowhere."`
	Unpin      unpinCmd      `cmd:"" help:"End a pin."`
	Drain      drainCmd      `cmd:"" help:"Move every group off a node, and keep them off."`
	Undrain    undrainCmd    `cmd:"" help:"End a drain."`
	Logs       logsCmd       `cmd:"" help:"Show what a group's programs have printed."`
	Report     reportCmd     `cmd:"" help:"Gather what a bug report needs into one file, without secrets."`
	Explain    explainCmd    `cmd:"" help:"Tell why a group is where it is, or show one entry of the history."`
	History    historyCmd    `cmd:"" help:"List what was decided, and why."`
	Check      checkCmd      `cmd:"" help:"Check the cluster file, this host, and what takeover it can keep."`
	Keygen     keygenCmd     `cmd:"" help:"Make a cluster key."`
	Invite     inviteCmd     `cmd:"" help:"Let a host join as one of the file's nodes: prints the line to type there."`
	Join       joinCmd       `cmd:"" help:"Make this host a node of a cluster, by invitation: fetches file and key."`
	Token      tokenCmd      `cmd:"" help:"Give access from afar, and take it back."`
	Context    contextCmd    `cmd:"" help:"Choose clusters to use from afar."`
	Key        keyCmd        `cmd:"" help:"Change the cluster's key."`
	Bench      benchCmd      `cmd:"" help:"Measure, on this machine, the outages that clients see."`
	Simulate   simulateCmd   `cmd:"" passthrough:"" help:"Run the core through simulated faults (simulate --help tells more)."`
	Version    versionCmd    `cmd:"" help:"Print the version."`
	Completion completionCmd `cmd:"" help:"Print a script that completes commands and names in a shell."`
	Complete   completeCmd   `cmd:"" hidden:"" passthrough:"" help:"What a shell asks."`
	Init       initCmd       `cmd:"" help:"Make a cluster: ask, propose, write the cluster file and the key."`
	Apply      applyCmd      `cmd:"" help:"Change the running cluster: show what a new cluster file does, ask, do it."`
	Edit       editCmd       `cmd:"" help:"Edit the cluster file that counts, then apply it."`
	Config     configCmd     `cmd:"" help:"Show, compare and take back revisions of the cluster file."`
	Plan       planCmd       `cmd:"" help:"Tell what would happen, without doing it."`
	Leave      leaveCmd      `cmd:"" help:"Take a node out of the cluster, also one that is down."`
	Form       formCmd       `cmd:"" help:"Found the cluster though a node can't be reached."`
}

// console is what a command is run with.
type console struct {
	ctx    context.Context // ends with SIGINT and SIGTERM
	in     io.Reader
	out    io.Writer
	err    io.Writer
	socket string
	remote *remoteContext // where the agent is; nil: at the socket
	lost   error          // why it is not known where
	json   bool
	paint  palette
	// progress says that somebody looks on: what happens meanwhile is told on err.
	progress bool
	typed    *bufio.Reader // in, once something was read from it
	asked    *api.Client   // the agent that was asked
}

// failure is an error that knows its exit code and what to do next.
type failure struct {
	code int
	text string
	hint string
}

func (f *failure) Error() string { return f.text }

func fail(code int, hint, format string, args ...any) error {
	return &failure{code, fmt.Sprintf(format, args...), hint}
}

// exited is how Kong ends after --help: it must not end the process.
type exited int

// Main runs one command and returns the exit code.
func Main(args []string, in io.Reader, out, errOut io.Writer) int {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	return runCommand(ctx, args, in, out, errOut)
}

func runCommand(ctx context.Context, args []string, in io.Reader, out, errOut io.Writer) (code int) {
	defer func() {
		if r := recover(); r != nil {
			e, ok := r.(exited)
			if !ok {
				panic(r)
			}
			code = int(e)
		}
	}()
	var c commands
	k := &console{ctx: ctx, in: in, out: out, err: errOut, paint: palette{on: colours(out)}, progress: isTerminal(errOut)}
	parser, err := kong.New(&c, kong.Name("baton"), kong.Description("Failover manager: moves services between machines, and never lets two serve."),
		kong.Writers(out, errOut), kong.Exit(func(code int) { panic(exited(code)) }), kong.ConfigureHelp(kong.HelpOptions{Compact: true}))
	if err != nil {
		return finish(k, err)
	}
	if len(args) == 0 {
		args = []string{"--help"}
	}
	parsed, err := parser.Parse(args)
	if err != nil {
		return finish(k, usage(err))
	}
	if c.Socket == "" { // an empty BATON_SOCKET
		c.Socket = defaultSocket
	}
	k.socket, k.json = c.Socket, c.JSON
	k.remote, k.lost = choose(&c)
	parsed.BindTo(ctx, (*context.Context)(nil))
	code = finish(k, parsed.Run(k, parser))
	k.note()
	return code
}

// finish tells of an error, if there is one, and returns the exit code.
func finish(k *console, err error) int {
	if err == nil {
		return exitDone
	}
	f := &failure{code: exitFailed, text: err.Error()}
	var wrong config.Errors
	var one exitCode
	switch {
	case errors.As(err, &one):
		return int(one)
	case errors.As(err, &f):
	case errors.As(err, &wrong):
		fmt.Fprintln(k.err, wrong) // each with its place and its own hint
		return exitUsage
	}
	fmt.Fprintf(k.err, "error: %s\n", f.text)
	if f.hint != "" {
		fmt.Fprintf(k.err, "hint: %s\n", f.hint)
	}
	return f.code
}

// exitCode ends a command that has said itself what there was to say.
type exitCode int

func (e exitCode) Error() string { return fmt.Sprintf("exit code %d", int(e)) }

// note tells what the agent noted beside its answers: that its own cluster file is not what counts.
func (k *console) note() {
	if k.asked == nil {
		return
	}
	if text, hint := k.asked.Note(); text != "" {
		fmt.Fprintf(k.err, "note: %s\nhint: %s\n", text, hint)
	}
}

// trouble turns an error of the agent's client into what the user is told.
func (k *console) trouble(err error) error { return k.troubleAt(err, k.where()) }

func (k *console) troubleAt(err error, where string) error {
	if err == nil {
		return nil
	}
	var told *failure
	if errors.As(err, &told) {
		return told
	}
	if k.ctx.Err() != nil {
		return fail(exitFailed, "", "interrupted")
	}
	t := api.Explain(err)
	switch {
	case t.Silent:
		return fail(exitUnreached, t.Hint, "%s: %s", where, t.Text)
	case t.Unreached && where != k.socket:
		return fail(exitUnreached, "does a node's agent run there, and does a firewall let TCP through? baton check prints the rules", "no agent reached at %s: %s", where, t.Text)
	case t.Unreached:
		if p := readParting(k.socket); p != nil {
			return fail(exitUnreached, p.Hint, "no agent runs here: %s", p.Text)
		}
		return fail(exitUnreached, "systemctl start baton, or name another socket with --socket or BATON_SOCKET", "no agent reached at %s: %s", where, t.Text)
	case t.Code == connect.CodePermissionDenied, t.Code == connect.CodeUnauthenticated, errors.Is(err, identity.ErrStranger):
		return fail(exitFailed, t.Hint, "%s: %s", where, t.Text)
	case t.Code == connect.CodeUnimplemented && t.Hint == "":
		return fail(exitFailed, "baton version tells which versions they are; restart the agent if it is older", "%s: the agent is of another version, and does not know this command", where)
	case t.Code == connect.CodeInvalidArgument:
		return fail(exitUsage, t.Hint, "%s", t.Text)
	}
	return fail(exitFailed, t.Hint, "%s", t.Text)
}

func isTerminal(w any) bool {
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

// colours tells whether to paint (no-color.org).
func colours(w io.Writer) bool {
	return os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb" && isTerminal(w)
}
