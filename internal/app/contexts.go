package app

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/goccy/go-yaml"

	"baton/internal/io/api"
	"baton/internal/io/bounded"
	"baton/internal/io/identity"
)

// contextFile is what a person's commands know of clusters that they use from afar:
// ~/.config/baton/contexts.yaml. It holds secrets, so nobody else may read it.
type contextFile struct {
	Current  string          `yaml:"current,omitempty"` // used where nothing else is named; empty: the socket
	Contexts []remoteContext `yaml:"contexts"`
}

// remoteContext is one cluster.
type remoteContext struct {
	Name      string   `yaml:"name" json:"name"`
	Addresses []string `yaml:"addresses" json:"addresses"` // HOST[:PORT], tried in order
	// Authority are the fingerprints of the authorities that are believed: one, or two while the key is changed.
	Authority []string `yaml:"authority" json:"authority"`
	Token     string   `yaml:"token,omitempty" json:"-"`
	TokenFile string   `yaml:"token_file,omitempty" json:"tokenFile,omitempty"`
}

// What a command takes from the environment, for pipelines.
const (
	contextVariable = "BATON_CONTEXT"
	tokenVariable   = "BATON_TOKEN"
	pinVariable     = "BATON_AUTHORITY"
)

// contextPath names the file.
func contextPath() (string, error) {
	dir, err := os.UserConfigDir()
	if err != nil {
		return "", fail(exitUsage, "set HOME or XDG_CONFIG_HOME", "find the contexts: %v", err)
	}
	return filepath.Join(dir, "baton", "contexts.yaml"), nil
}

// readPrivate reads a file that nobody else may read.
func readPrivate(name string) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if mode := info.Mode(); mode.IsRegular() && mode.Perm()&0o077 != 0 {
		return nil, fail(exitUsage, "chmod 600 "+name, "%s has mode %04o: others can read the secret in it", name, mode.Perm())
	}
	return bounded.ReadAll(f, maxContexts)
}

const maxContexts = 1 << 20 // bytes of a context file

// readContexts reads the contexts; without the file there are none.
func readContexts() (*contextFile, error) {
	name, err := contextPath()
	if err != nil {
		return nil, err
	}
	text, err := readPrivate(name)
	var told *failure
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return &contextFile{}, nil
	case errors.As(err, &told):
		return nil, err
	case err != nil:
		return nil, fail(exitUsage, "", "read the contexts: %v", err)
	}
	f := new(contextFile)
	decoder := yaml.NewDecoder(bytes.NewReader(text), yaml.Strict())
	if err := decoder.Decode(f); err != nil && !errors.Is(err, io.EOF) {
		return nil, fail(exitUsage, "correct it, or remove it and add the contexts anew", "%s: %s", name, firstLine(err.Error()))
	}
	return f, nil
}

func firstLine(s string) string {
	line, _, _ := strings.Cut(s, "\n")
	return line
}

// write replaces the file.
func (f *contextFile) write() error {
	name, err := contextPath()
	if err != nil {
		return err
	}
	text, err := yaml.Marshal(f)
	if err == nil {
		err = os.MkdirAll(filepath.Dir(name), 0o700)
	}
	if err != nil {
		return fmt.Errorf("write the contexts: %w", err)
	}
	return replaceFile(name, text, 0o600)
}

func (f *contextFile) find(name string) *remoteContext {
	for i := range f.Contexts {
		if f.Contexts[i].Name == name {
			return &f.Contexts[i]
		}
	}
	return nil
}

func (f *contextFile) names() string {
	names := make([]string, len(f.Contexts))
	for i, c := range f.Contexts {
		names[i] = c.Name
	}
	return strings.Join(names, ", ")
}

// named returns a context, or an error that lists those that there are.
func (f *contextFile) named(name string) (*remoteContext, error) {
	c := f.find(name)
	switch {
	case c != nil:
		return c, nil
	case len(f.Contexts) == 0:
		return nil, fail(exitUsage, "baton context add, as baton token add prints it on a node", "there is no context %q, nor any other", name)
	}
	return nil, fail(exitUsage, "the contexts are: "+f.names(), "there is no context %q", name)
}

// secret returns the context's token.
func (c *remoteContext) secret() (string, error) {
	text := c.Token
	if c.TokenFile != "" {
		name := c.TokenFile
		if rest, home := strings.CutPrefix(name, "~/"); home {
			dir, err := os.UserHomeDir()
			if err != nil {
				return "", fail(exitUsage, "write the whole path", "%s: %v", name, err)
			}
			name = filepath.Join(dir, rest)
		}
		raw, err := readPrivate(name)
		if err != nil {
			var told *failure
			if errors.As(err, &told) {
				return "", err
			}
			return "", fail(exitUsage, "add the context anew, with --token or --token-file", "read the token: %v", err)
		}
		text = string(raw)
	}
	return checkToken(text)
}

// checkToken tells what is wrong with a token before it goes anywhere.
func checkToken(text string) (string, error) {
	text = strings.TrimSpace(text)
	const hint = "an administrator makes one on a node: baton token add NAME --role ROLE"
	_, err := identity.ParseToken(text)
	_, invitation := identity.ParseInvitation(text)
	switch {
	case text == "":
		return "", fail(exitUsage, hint, "there is no token")
	case invitation == nil:
		return "", fail(exitUsage, hint, "that is an invitation, which is for baton join, and no token")
	case errors.Is(err, identity.ErrSpoiltSecret):
		return "", fail(exitUsage, "copy it again as a whole", "the token was cut short or changed")
	case err != nil:
		return "", fail(exitUsage, hint, "that is no token: a token begins with bt1_")
	}
	return text, nil
}

// client returns a client of whichever of the context's addresses answers.
func (c *remoteContext) client() (*api.Client, error) {
	var pins []identity.Fingerprint
	for _, text := range c.Authority {
		pin, err := identity.ParseFingerprint(text)
		if err != nil {
			return nil, fail(exitUsage, "baton token add prints it on a node", "%v", err)
		}
		pins = append(pins, pin)
	}
	switch {
	case len(pins) == 0:
		return nil, fail(exitUsage, "baton context add, as baton token add prints it on a node; or "+pinVariable+"=sha256:…", "nothing says which authority to believe")
	case len(c.Addresses) == 0:
		return nil, fail(exitUsage, "baton context add NAME ADDRESS …", "no address is known")
	}
	token, err := c.secret()
	if err != nil {
		return nil, err
	}
	addresses := make([]string, len(c.Addresses))
	for i, a := range c.Addresses {
		addresses[i] = longAddress(a)
	}
	return api.DialTLS(addresses, identity.Pinned(pins), token), nil
}

// where names the agent in messages.
func (k *console) where() string {
	if k.remote == nil {
		return k.socket
	}
	return k.remote.where()
}

func (c *remoteContext) where() string {
	addresses := strings.Join(c.Addresses, ", ")
	if c.Name == "" {
		return addresses
	}
	return "context " + c.Name + " (" + addresses + ")"
}

// choose finds the agent: an address or a context that is named counts, then a socket that is named, then the
// context in use, then the usual socket. Nil: the socket.
func choose(c *commands) (*remoteContext, error) {
	name := c.ContextName
	asked := name != "" || c.Address != ""
	if !asked && (c.Socket != defaultSocket || os.Getenv("BATON_SOCKET") != "") {
		return nil, nil
	}
	file, err := readContexts()
	if err != nil {
		if !asked {
			// The socket is not to be lost over a file that is for other clusters; the context commands tell.
			return nil, nil
		}
		return nil, err
	}
	if name == "" {
		name = file.Current
	}
	remote := &remoteContext{}
	switch {
	case name != "":
		known, err := file.named(name)
		if err != nil {
			return nil, err
		}
		*remote = *known
	case c.Address == "":
		return nil, nil
	}
	if c.Address != "" {
		remote.Addresses = []string{c.Address}
	}
	if token := os.Getenv(tokenVariable); token != "" {
		remote.Token, remote.TokenFile = token, ""
	}
	if pin := os.Getenv(pinVariable); pin != "" {
		remote.Authority = strings.FieldsFunc(pin, func(r rune) bool { return r == ',' || r == ' ' })
	}
	return remote, nil
}

// agent returns a client of the agent.
func (k *console) agent() *api.Client {
	k.asked = k.newAgent()
	return k.asked
}

func (k *console) newAgent() *api.Client {
	err := k.lost
	if err == nil && k.remote == nil {
		return api.Dial(k.socket)
	}
	if err == nil {
		var c *api.Client
		if c, err = k.remote.client(); err == nil {
			return c
		}
	}
	return api.Failing(err)
}

// contextCmd is `baton context`.
type contextCmd struct {
	Add    contextAddCmd    `cmd:"" help:"Add a cluster to use from afar, or change one."`
	List   contextListCmd   `cmd:"" help:"List the clusters."`
	Use    contextUseCmd    `cmd:"" help:"Make commands use a cluster where nothing else is named."`
	Remove contextRemoveCmd `cmd:"" help:"Forget a cluster."`
}

// contextAddCmd is `baton context add`.
type contextAddCmd struct {
	Name      string   `arg:"" help:"What to call it."`
	Addresses []string `arg:"" name:"address" help:"Where its nodes answer: HOST[:PORT], tried in order."`
	Authority []string `required:"" help:"Fingerprint of the cluster's authority: nobody else is believed." placeholder:"SHA256:…"`
	Token     string   `xor:"token" help:"The token; - reads it from standard input." placeholder:"TOKEN"`
	TokenFile string   `xor:"token" type:"path" help:"A file that holds the token." placeholder:"FILE"`
}

// Run adds a context, after it was tried.
func (c *contextAddCmd) Run(k *console) error {
	file, err := readContexts()
	if err != nil {
		return err
	}
	token := c.Token
	if token == "-" {
		raw, err := bounded.ReadAll(k.in, bounded.Typed)
		if err != nil {
			return fail(exitUsage, "", "read the token from standard input: %v", err)
		}
		token = strings.TrimSpace(string(raw))
	}
	if token == "" && c.TokenFile == "" {
		return fail(exitUsage, "--token TOKEN, --token - or --token-file FILE", "no token is given")
	}
	x := remoteContext{Name: c.Name, Addresses: c.Addresses, Authority: c.Authority, Token: token, TokenFile: c.TokenFile}
	reached, err := k.try(&x)
	if err != nil {
		return err
	}
	if old := file.find(c.Name); old != nil {
		*old = x
	} else {
		file.Contexts = append(file.Contexts, x)
	}
	if err := file.write(); err != nil {
		return err
	}
	if k.json {
		return k.printJSON(x)
	}
	fmt.Fprintf(k.out, "context %s: %s\n", c.Name, reached)
	fmt.Fprintf(k.err, "hint: baton --context %s status, or baton context use %s\n", c.Name, c.Name)
	return nil
}

// try asks the nodes of a context who they are. That none is reached is no error: it may be so today.
func (k *console) try(x *remoteContext) (string, error) {
	agent, err := x.client()
	if err != nil {
		return "", err
	}
	defer agent.Close()
	s, err := lookAt(k.ctx, agent)
	if err != nil {
		if t := api.Explain(err); t.Unreached {
			return "saved, but not reached now: " + t.Text, nil
		}
		return "", k.troubleAt(err, x.where())
	}
	return "it reaches " + s.Node + " of cluster " + s.Cluster, nil
}

// contextListCmd is `baton context list`.
type contextListCmd struct{}

// Run lists the contexts.
func (c *contextListCmd) Run(k *console) error {
	file, err := readContexts()
	if err != nil {
		return err
	}
	if k.json {
		if file.Contexts == nil {
			file.Contexts = []remoteContext{}
		}
		return k.printJSON(struct {
			Current  string          `json:"current"`
			Contexts []remoteContext `json:"contexts"`
		}{file.Current, file.Contexts})
	}
	if len(file.Contexts) == 0 {
		fmt.Fprintln(k.err, "there is none; baton token add prints on a node how to add one")
		return nil
	}
	rows := [][]cell{heading("context", "addresses", "")}
	for _, x := range file.Contexts {
		used := ""
		if x.Name == file.Current {
			used = "in use"
		}
		rows = append(rows, []cell{{text: x.Name}, {text: strings.Join(x.Addresses, ", ")}, {text: used}})
	}
	k.paint.table(k.out, rows)
	return nil
}

// contextUseCmd is `baton context use`.
type contextUseCmd struct {
	Name string `arg:"" optional:"" help:"The context; without one, commands use the socket again."`
}

// Run chooses a context.
func (c *contextUseCmd) Run(k *console) error {
	file, err := readContexts()
	if err != nil {
		return err
	}
	if c.Name != "" {
		if _, err := file.named(c.Name); err != nil {
			return err
		}
	}
	file.Current = c.Name
	if err := file.write(); err != nil {
		return err
	}
	if c.Name == "" {
		return k.done("commands use this machine's agent")
	}
	return k.done("commands use " + file.find(c.Name).where())
}

// contextRemoveCmd is `baton context remove`.
type contextRemoveCmd struct {
	Name string `arg:"" help:"The context."`
}

// Run forgets a context.
func (c *contextRemoveCmd) Run(k *console) error {
	file, err := readContexts()
	if err != nil {
		return err
	}
	if _, err := file.named(c.Name); err != nil {
		return err
	}
	file.Contexts = slices.DeleteFunc(file.Contexts, func(x remoteContext) bool { return x.Name == c.Name })
	if file.Current == c.Name {
		file.Current = ""
	}
	if err := file.write(); err != nil {
		return err
	}
	return k.done("context " + c.Name + " is forgotten; its token is valid until it is revoked: baton token revoke NAME")
}

// done tells what a command did.
func (k *console) done(text string) error {
	if k.json {
		return k.printJSON(struct {
			Done bool   `json:"done"`
			Text string `json:"text"`
		}{true, text})
	}
	fmt.Fprintln(k.out, text)
	return nil
}
