package app

import (
	"cmp"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"baton/internal/core/cluster"
	"baton/internal/core/config"
	"baton/internal/core/wire"
)

// initCmd is `baton init`.
type initCmd struct {
	Cluster  string        `help:"The cluster's name." placeholder:"NAME"`
	Node     []string      `sep:"none" help:"A node: NAME=ADDRESS, or NAME=ADDRESS,witness or ,spare. Once for each." placeholder:"NAME=ADDRESS[,ROLE]"`
	Self     string        `help:"Which node this host is (default: the host's name, or the node that has an address of it)." placeholder:"NAME"`
	Process  string        `help:"The program that the first group runs." placeholder:"COMMAND"`
	User     string        `help:"Whom it runs as." placeholder:"USER"`
	Port     uint16        `help:"The port that it listens on, to tell when it is ready." placeholder:"PORT"`
	VIP      []string      `name:"vip" sep:"none" help:"An address that its clients use. Once for each." placeholder:"ADDRESS/BITS"`
	Takeover time.Duration `help:"After any single fault a group serves again within this time." placeholder:"3s"`
	Config   string        `default:"/etc/baton/cluster.yaml" help:"The cluster file to write." placeholder:"FILE"`
	Key      string        `default:"/etc/baton/key" help:"The key to write." placeholder:"FILE"`
	Force    bool          `help:"Overwrite the cluster file; a key that is there stays and is used."`
	Yes      bool          `short:"y" help:"Do not ask: the flags say everything."`
	Measure  time.Duration `default:"1s" help:"How long the check that follows looks for stalls." placeholder:"1s"`
}

// Run proposes a file, writes it and a key, and checks both.
func (c *initCmd) Run(k *console) error {
	if k.json {
		return fail(exitUsage, "leave --json out", "baton init talks to people")
	}
	if err := c.mayWrite(); err != nil {
		return err
	}
	answers, err := c.fromFlags()
	if err != nil {
		return err
	}
	asks := !c.Yes && isTerminal(k.in)
	if asks {
		if err := c.ask(k, answers); err != nil {
			return err
		}
	} else if lacking := c.lacking(answers); lacking != "" {
		return fail(exitUsage, "baton init --help, or run it on a terminal: it asks", "%s", lacking)
	}
	text := config.Propose(*answers)
	spec, err := config.Parse("the proposed file", text, Kinds())
	if err != nil {
		return err
	}
	self := c.thisNode(spec)
	if id := cluster.NodeID(self); c.Self != "" && spec.Node(id) == nil {
		return fail(exitUsage, "name one of --node", "--self: there is no node %q", c.Self)
	}
	if _, err := nodeName(self, spec); err != nil && !asks {
		return fail(exitUsage, "run it on one of them, or tell which one this host is: --self NAME",
			"this host is none of the nodes: it has neither the name nor the address of one")
	}
	if asks {
		fmt.Fprintf(k.out, "\n%s\n", text)
		if !k.agreed("Write this to " + c.Config + "?") {
			return fail(exitFailed, "", "nothing was written")
		}
	}
	if err := c.write(k, text); err != nil {
		return err
	}
	fmt.Fprintln(k.out)
	err = (&checkCmd{File: c.Config, Node: self, Data: "/var/lib/baton", Measure: c.Measure}).Run(k)
	c.next(k, spec, self, err != nil)
	return err
}

// mayWrite looks for what would be overwritten, before anything is asked.
func (c *initCmd) mayWrite() error {
	if c.Force {
		return nil
	}
	if _, err := os.Lstat(c.Config); err == nil {
		return fail(exitFailed, "change a cluster that runs with baton edit; to begin anew, add --force or name another file with --config", "%s is there already", c.Config)
	}
	if _, err := os.Lstat(c.Key); err == nil {
		return fail(exitFailed, "add --force to use it, or remove it first if no cluster does", "the key %s is there already, and a key is never overwritten", c.Key)
	}
	return nil
}

// fromFlags reads the answers that the flags give.
func (c *initCmd) fromFlags() (*config.Answers, error) {
	a := &config.Answers{Cluster: c.Cluster, Takeover: c.Takeover, KeyFile: c.Key, Command: c.Process, User: c.User, Port: c.Port}
	if whole, err := filepath.Abs(c.Key); err == nil {
		a.KeyFile = whole
	}
	for _, text := range c.Node {
		n, err := parseNode(text)
		if err != nil {
			return nil, fail(exitUsage, "write --node alpha=10.0.0.11, or --node gamma=10.0.0.13,witness", "--node %s: %v", text, err)
		}
		a.Nodes = append(a.Nodes, n)
	}
	for _, text := range c.VIP {
		p, err := netip.ParsePrefix(text)
		if err != nil {
			return nil, fail(exitUsage, "write an address with its prefix length: --vip 10.0.0.50/24", "--vip: %q is none", text)
		}
		a.VIPs = append(a.VIPs, p)
	}
	if c.Takeover != 0 && (c.Takeover < config.MinTakeover || c.Takeover > config.MaxTakeover) {
		return nil, fail(exitUsage, "3s suits most", "--takeover: %v is outside %v to %v", c.Takeover, config.MinTakeover, config.MaxTakeover)
	}
	return a, nil
}

// parseNode reads NAME=ADDRESS[,ROLE].
func parseNode(text string) (n cluster.NodeSpec, err error) {
	name, rest, ok := strings.Cut(text, "=")
	if !ok {
		return n, errors.New("it has no =")
	}
	address, role, _ := strings.Cut(rest, ",")
	if !config.GoodName(name) {
		return n, fmt.Errorf("%q is no name for a node: a-z, 0-9 and - make one", name)
	}
	if n.Address, err = netip.ParseAddr(address); err != nil {
		return n, fmt.Errorf("%q is no address", address)
	}
	n.ID = cluster.NodeID(name)
	n.Role, err = parseRole(role)
	return n, err
}

func parseRole(text string) (cluster.Role, error) {
	for _, r := range []cluster.Role{cluster.Member, cluster.Spare, cluster.Witness} {
		if text == r.String() || text == "" {
			return r, nil
		}
	}
	return 0, fmt.Errorf("%q is no role: member, spare or witness", text)
}

// lacking says what the flags leave open; empty: nothing that is needed.
func (c *initCmd) lacking(a *config.Answers) string {
	switch {
	case a.Cluster == "":
		return "the cluster has no name: --cluster NAME"
	case len(a.Nodes) < config.MinVoters:
		return fmt.Sprintf("%d nodes are named, and a cluster needs %d: --node NAME=ADDRESS for each", len(a.Nodes), config.MinVoters)
	case a.Command != "" && a.User == "":
		return "the agent is root, so a process says whom it runs as: --user USER"
	}
	return ""
}

// write writes key and file. The key comes first: a file without one starts nothing.
func (c *initCmd) write(k *console, text []byte) error {
	for _, dir := range []string{filepath.Dir(c.Config), filepath.Dir(c.Key)} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return fmt.Errorf("make the directory: %w", err)
		}
	}
	_, err := os.Lstat(c.Key)
	if err == nil {
		fmt.Fprintf(k.out, "used   %s, which was there\n", c.Key)
	} else {
		key, err := wire.NewKey(rand.Reader)
		if err != nil {
			return err
		}
		if err := writeKey(c.Key, wire.FormatKey(key)); err != nil {
			return err
		}
		fmt.Fprintf(k.out, "wrote  %s (mode 0600): whoever has it can speak for any node\n", c.Key)
	}
	if err := replaceFile(c.Config, text, fileMode); err != nil {
		return fmt.Errorf("write the cluster file: %w", err)
	}
	fmt.Fprintf(k.out, "wrote  %s\n", c.Config)
	return nil
}

// thisNode names this host's node, as far as it can be told; empty: by the host's name.
func (c *initCmd) thisNode(spec *cluster.Spec) string {
	if c.Self != "" {
		return c.Self
	}
	if _, err := nodeName("", spec); err == nil {
		return ""
	}
	here, err := hostAddresses()
	if err != nil {
		return ""
	}
	for _, n := range spec.Nodes {
		if slices.Contains(here, n.Address.Unmap()) {
			return string(n.ID)
		}
	}
	return ""
}

// next says what to type next.
func (c *initCmd) next(k *console, spec *cluster.Spec, self string, failed bool) {
	fmt.Fprintln(k.out)
	if failed {
		fmt.Fprintf(k.out, "Put the failures right first, then: baton check %s\n", c.Config)
	}
	fmt.Fprintln(k.out, "Next, here:")
	if _, err := nodeName("", spec); err != nil && self != "" {
		fmt.Fprintf(k.out, "  echo 'OPTIONS=\"--node %s\"' >> /etc/default/baton     # the host has another name\n", self)
	}
	fmt.Fprintln(k.out, "  systemctl enable --now baton")
	if id, err := nodeName(self, spec); err == nil {
		self = string(id)
	}
	for _, n := range spec.Nodes {
		if string(n.ID) != self {
			fmt.Fprintf(k.out, "  baton invite %-20s # then type on %s what it prints\n", n.ID, n.ID)
		}
	}
	fmt.Fprintln(k.out, "  baton status --wait               # every node is needed once, to found the cluster")
}

// ask asks for what the flags leave open, with a proposal for each.
func (c *initCmd) ask(k *console, a *config.Answers) error {
	f := &form{k: k}
	fmt.Fprintln(k.out, "A few questions; Enter takes what stands in brackets, Ctrl-C writes nothing.")
	f.given(&a.Cluster, "Name of the cluster", "main", goodName)
	if len(a.Nodes) == 0 {
		f.nodes(a)
	}
	if a.Command == "" && len(a.VIPs) == 0 {
		f.service(a)
	}
	if a.Command != "" && a.User == "" {
		f.given(&a.User, "User that it runs as", "nobody", notEmpty)
	}
	if a.Takeover == 0 {
		text := f.line("After a fault a group serves again within", "3s", func(s string) error {
			d, err := time.ParseDuration(s)
			if err != nil || d < config.MinTakeover || d > config.MaxTakeover {
				return fmt.Errorf("a time from %v to %v, such as 3s or 250ms", config.MinTakeover, config.MaxTakeover)
			}
			return nil
		})
		a.Takeover, _ = time.ParseDuration(text)
	}
	return f.err
}

// form asks on a terminal. After the first error it asks nothing more.
type form struct {
	k   *console
	err error
}

// line asks until the answer is good, and returns it.
func (f *form) line(question, proposal string, check func(string) error) string {
	for f.err == nil {
		fmt.Fprintf(f.k.out, "%s", question)
		if proposal != "" {
			fmt.Fprintf(f.k.out, " [%s]", proposal)
		}
		fmt.Fprint(f.k.out, ": ")
		text, err := f.k.readLine()
		if f.k.ctx.Err() != nil {
			f.err = fail(exitFailed, "", "interrupted: nothing was written")
		} else if err != nil && text == "" {
			f.err = fail(exitUsage, "", "the answers ended: nothing was written")
		}
		text = cmp.Or(strings.TrimSpace(text), proposal)
		if err := check(text); f.err == nil && err != nil {
			fmt.Fprintln(f.k.out, "  "+f.k.paint.text(red, err.Error()))
			continue
		}
		return text
	}
	return ""
}

// given asks for a text, unless there is one.
func (f *form) given(to *string, question, proposal string, check func(string) error) {
	if *to == "" {
		*to = f.line(question, proposal, check)
	}
}

func goodName(s string) error {
	if !config.GoodName(s) {
		return errors.New("a-z, 0-9 and - make a name, at most 63 of them")
	}
	return nil
}

func notEmpty(s string) error {
	if s == "" {
		return errors.New("something has to stand here")
	}
	return nil
}

// nodes asks for this host, a second one, a third voter, and more.
func (f *form) nodes(a *config.Answers) {
	host, address := proposedHost()
	fmt.Fprintf(f.k.out, "\nA cluster needs %d nodes: two that run services, and one more that at least votes.\n", config.MinVoters)
	f.node(a, "This host's node", host, address, cluster.Member)
	f.node(a, "Second node", "", "", cluster.Member)
	f.node(a, "Third node", "", "", cluster.Witness)
	for f.err == nil && len(a.Nodes) < config.MaxNodes {
		name := f.line("One more node? Its name (Enter: no)", "", func(s string) error {
			if s == "" {
				return nil
			}
			return f.freeName(a, s)
		})
		if name == "" {
			return
		}
		f.nodeNamed(a, name, "", cluster.Member)
	}
}

func (f *form) freeName(a *config.Answers, name string) error {
	if slices.ContainsFunc(a.Nodes, func(n cluster.NodeSpec) bool { return string(n.ID) == name }) {
		return fmt.Errorf("there is a node %s already", name)
	}
	return goodName(name)
}

func (f *form) node(a *config.Answers, what, name, address string, role cluster.Role) {
	name = f.line(what+": its name", name, func(s string) error { return f.freeName(a, s) })
	f.nodeNamed(a, name, address, role)
}

func (f *form) nodeNamed(a *config.Answers, name, address string, role cluster.Role) {
	n := cluster.NodeSpec{ID: cluster.NodeID(name)}
	text := f.line("  its address", address, func(s string) error {
		ip, err := netip.ParseAddr(s)
		switch {
		case err != nil:
			return errors.New("an address such as 10.0.0.11 or fd00::11, not a name: a failover must not wait for a name server")
		case slices.ContainsFunc(a.Nodes, func(n cluster.NodeSpec) bool { return n.Address == ip }):
			return fmt.Errorf("another node has %s", s)
		}
		return nil
	})
	if f.err == nil {
		n.Address, _ = netip.ParseAddr(text)
	}
	word := f.line("  its role (member, spare or witness)", role.String(), func(s string) error {
		r, err := parseRole(s)
		if len(a.Nodes) == 0 && r == cluster.Witness && err == nil {
			return errors.New("the first node runs services: a member or a spare")
		}
		return err
	})
	n.Role, _ = parseRole(word)
	a.Nodes = append(a.Nodes, n)
}

// service asks for the first group.
func (f *form) service(a *config.Answers) {
	fmt.Fprintln(f.k.out, "\nThe service that is to stay up; Enter leaves a part out.")
	text := f.line("Address that its clients use, with its prefix length", "", func(s string) error {
		if s == "" {
			return nil
		}
		p, err := netip.ParsePrefix(s)
		if err != nil {
			return errors.New("an address with its prefix length, such as 10.0.0.50/24")
		}
		if slices.ContainsFunc(a.Nodes, func(n cluster.NodeSpec) bool { return n.Address == p.Addr() }) {
			return errors.New("that is a node's own: the service needs one that moves with it")
		}
		return nil
	})
	if text != "" && f.err == nil {
		vip, _ := netip.ParsePrefix(text)
		a.VIPs = []netip.Prefix{vip}
	}
	a.Command = f.line("Program to run (it stays in the foreground)", "", func(string) error { return nil })
	if a.Command == "" || f.err != nil {
		return
	}
	f.given(&a.User, "User that it runs as", "nobody", notEmpty)
	port := f.line("Port that it listens on, to tell when it is ready", "", func(s string) error {
		if n, err := strconv.ParseUint(s, 10, 16); s != "" && (err != nil || n == 0) {
			return errors.New("a number from 1 to 65535")
		}
		return nil
	})
	n, _ := strconv.ParseUint(port, 10, 16)
	a.Port = uint16(n)
}

// proposedHost returns this host's name and the address that others may reach it at; empty: not known.
func proposedHost() (name, address string) {
	if host, err := os.Hostname(); err == nil {
		host, _, _ = strings.Cut(strings.ToLower(host), ".")
		if config.GoodName(host) {
			name = host
		}
	}
	interfaces, err := net.Interfaces()
	if err != nil {
		return name, ""
	}
	six := ""
	for _, i := range interfaces {
		list, err := i.Addrs()
		if err != nil || i.Flags&net.FlagLoopback != 0 || i.Flags&net.FlagUp == 0 {
			continue
		}
		for _, x := range list {
			p, err := netip.ParsePrefix(x.String())
			switch {
			case err != nil || !p.Addr().IsGlobalUnicast():
			case p.Addr().Is4():
				return name, p.Addr().String()
			case six == "":
				six = p.Addr().String()
			}
		}
	}
	return name, six
}

// writeKey makes a file for a key, never over one that is there.
func writeKey(name, text string) error {
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, fs.ErrExist) {
		return fail(exitFailed, "if no cluster uses it: rm "+name, "%s is there already, and a key is never overwritten", name)
	} else if err != nil {
		return fail(exitFailed, "name a file in a directory that is there, and run it as root", "write the key to %s: %s", name, cause(err))
	}
	_, err = f.WriteString(text)
	if err = errors.Join(err, f.Chmod(0o600), f.Sync(), f.Close()); err != nil {
		return fmt.Errorf("write the key: %w", errors.Join(err, os.Remove(name)))
	}
	return nil
}
