// Package app composes baton: it drives one core with the real parts of a machine, and holds the commands.
// It is the only place that sees both what decides and what acts.
package app

import (
	"bytes"
	"cmp"
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/netip"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"baton/internal/core/cluster"
	"baton/internal/core/config"
	"baton/internal/core/node"
	"baton/internal/core/wire"
	"baton/internal/io/addr"
	"baton/internal/io/api"
	"baton/internal/io/bounded"
	"baton/internal/io/disk"
	"baton/internal/io/gate"
	"baton/internal/io/link"
	"baton/internal/io/resource"
)

// kinds are the resource kinds of this binary.
var kinds = []resource.Kind{addr.VIP{}, resource.Process{}}

// Kinds describes the resource kinds of this binary, for the file's reader.
func Kinds() []cluster.KindSpec {
	specs := make([]cluster.KindSpec, len(kinds))
	for i, k := range kinds {
		specs[i] = k.Spec()
	}
	return specs
}

// AgentOptions say which node to run. Only what differs by machine stands here; all else is in the file.
type AgentOptions struct {
	ConfigFile string
	Node       string // default: the host's name
	DataDir    string // durable
	RunDir     string // on tmpfs
	Socket     string
	Prefer     string // gate mechanism: "" or one of gate.Prefer…
	SharedHost bool   // other nodes' agents run in this network namespace (baton dev without root)
	NoGate     bool   // nothing cuts this node off (baton dev without root); refused but on loopback addresses
	LogFormat  string // "auto", "text", "json" or "journal"; empty: auto
	LogLevel   slog.Level
}

// What an agent that begins does before it is heard again. Its leases run out meanwhile.
const (
	adoptLimit  = 3 * time.Second        // bounds the probes of what runs
	adoptAtOnce = 16                     // so many of them side by side
	retireWait  = 200 * time.Millisecond // for the end of what the file does not name any more; it goes on ending after that
)

// agent is one running node.
type agent struct {
	opt   AgentOptions
	logs  *logging
	log   *slog.Logger
	spec  *cluster.Spec
	self  cluster.NodeID
	node  *node.Node
	clock clock
	inbox *inbox
	ended chan struct{} // closed when the loop has ended

	store    *disk.Store
	inc      cluster.Incarnation    // whose data directory it is
	replaced atomic.Pointer[string] // why it takes no part; nil: it does, or nothing is proven
	run      *runDir
	gate     gate.Gate // nil where no mechanism works
	links    *link.Links
	slots    map[place]*slot // the resources of this node
	persists chan cluster.Persist
	disk     sync.WaitGroup
	gates    map[cluster.GroupID]cluster.Gate // the newest of each group, to be translated anew each h
	gatesAt  cluster.Instant
	owed     owed
	unsent   complaint
	replies  map[uint64]chan node.Reply
	commands uint64
	keyFile  string
	access   *access
	quit     error // why this node must not go on; the loop's alone
	leave    leave // what the agent was told; the loop's alone
	manager  *supervisor
	*fitting
	file  *fileKeeper
	views views
	observing
	faults linkFaults
	whole  gateWhole
}

// RunAgent runs this node until the context ends, or SIGHUP comes. It returns nil if it was told to end.
func RunAgent(ctx context.Context, opt AgentOptions) error {
	return runAgent(ctx, opt, func(*agent) {})
}

// runAgent tells when the agent is about to begin.
func runAgent(ctx context.Context, opt AgentOptions, begins func(*agent)) (err error) {
	logs, err := openLog(cmp.Or(opt.LogFormat, "auto"), opt.LogLevel, os.Stderr, journalSocket)
	if err != nil {
		return err
	}
	defer logs.close()
	spec, self, keys, err := readSetup(opt, logs.log)
	if err != nil {
		return err
	}
	lockMemory(logs.log)
	shortSlices()
	a := &agent{opt: opt, logs: logs, log: logs.log.With("node", self), self: self, ended: make(chan struct{}),
		replies: make(map[uint64]chan node.Reply), gates: make(map[cluster.GroupID]cluster.Gate),
		persists: make(chan cluster.Persist, persistsMax), fitting: newFitting(), manager: findSupervisor(logs.log),
		file: newFileKeeper(self, opt.ConfigFile, opt.DataDir, logs.log)}
	a.observe()
	defer func() { err = errors.Join(err, a.close()) }()
	if a.access, err = newAccess(self, spec.KeyFile, keys, a.shared.Load); err != nil {
		return err
	}
	boot, err := a.open(spec)
	if err != nil {
		return err
	}
	server, err := api.Listen(opt.Socket, &backend{a})
	if err != nil {
		return err
	}
	a.forgetParting()
	a.access.server.Store(server)
	a.answerMonitors()
	beside, stop := context.WithCancel(context.Background())
	var helpers sync.WaitGroup
	helpers.Go(func() { a.watchLinks(beside) })
	helpers.Go(func() { a.watchNeighbours(beside) })
	helpers.Go(func() { a.watchTargets(beside) })
	helpers.Go(func() { a.watchLacks(beside) })
	helpers.Go(func() { a.sweepGate(beside) })
	helpers.Go(func() { a.keepRunDir(beside, server) })
	helpers.Go(func() { a.awaitLeave(ctx) })
	helpers.Go(func() { a.manager.accompany(beside) })
	helpers.Go(func() { a.file.run(beside) })
	helpers.Go(func() { a.watchKeys(beside) })
	helpers.Go(func() { a.watchFaults(beside) })
	helpers.Go(func() { a.watchStanding(beside) })
	defer func() {
		stop()
		helpers.Wait()
		err = errors.Join(err, server.Close())
	}()
	begins(a)
	return a.loop(boot)
}

// readSetup reads the file, this node's name, and the key.
func readSetup(opt AgentOptions, log *slog.Logger) (*cluster.Spec, cluster.NodeID, wire.Keys, error) {
	spec, err := readOwnFile(opt, log)
	if err != nil {
		return nil, "", wire.Keys{}, err
	}
	self, err := nodeName(opt.Node, spec)
	if err != nil {
		return nil, "", wire.Keys{}, err
	}
	keys, err := readKeyFile(spec.KeyFile)
	return spec, self, keys, err
}

// readOwnFile reads this node's own cluster file. One that somebody edited wrongly is not used, as no edited
// file is, so it keeps no agent from starting whose data directory has a text that counted.
func readOwnFile(opt AgentOptions, log *slog.Logger) (*cluster.Spec, error) {
	text, err := bounded.ReadFile(opt.ConfigFile, bounded.ClusterFile)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fail(exitUsage, noFileHint+"; or name it: baton agent --config FILE", "read the cluster file %s: %s", opt.ConfigFile, cause(err))
	}
	if err != nil {
		return nil, fail(exitUsage, "name the cluster file with baton agent --config FILE", "read the cluster file %s: %s", opt.ConfigFile, cause(err))
	}
	if bytes.Contains(text, []byte("\r\n")) {
		log.Warn("the cluster file has DOS line ends (CR LF)", "file", opt.ConfigFile, "hint", "sed -i 's/\\r$//' "+opt.ConfigFile+" on every node: a cluster forms only from files that are the same to the byte")
	}
	spec, err := readConfig(opt.ConfigFile, text)
	if err == nil {
		return spec, nil
	}
	if kept := newFileKeeper("", opt.ConfigFile, opt.DataDir, log).newestKept(); kept != "" {
		if text, bad := bounded.ReadFile(kept, bounded.ClusterFile); bad == nil {
			if spec, bad := readKept(kept, text); bad == nil {
				log.Warn("the cluster file can't be read, and is not used", "file", opt.ConfigFile, "instead", kept, "cause", err)
				return spec, nil
			}
		}
	}
	return nil, err
}

func nodeName(name string, spec *cluster.Spec) (cluster.NodeID, error) {
	if name == "" {
		host, err := os.Hostname()
		if err != nil {
			return "", fmt.Errorf("ask for this host's name: %w", err)
		}
		name, _, _ = strings.Cut(host, ".")
	}
	if spec.Node(cluster.NodeID(name)) == nil {
		names := make([]string, len(spec.Nodes))
		for i, n := range spec.Nodes {
			names[i] = string(n.ID)
		}
		return "", fail(exitUsage, "name it: baton agent --node NAME", "node %q is not in the cluster file, which names %s", name, strings.Join(names, ", "))
	}
	return cluster.NodeID(name), nil
}

// open opens the real parts and gathers what a former run has left.
func (a *agent) open(spec *cluster.Spec) (*node.Boot, error) {
	boot, err := bootID()
	if err != nil {
		return nil, err
	}
	if a.inbox, err = newInbox(realtime(spec.Timing)); err != nil {
		return nil, fmt.Errorf("make the inbox: %w", err)
	}
	lived := lastWrite(a.opt.DataDir)
	store, image, err := disk.Open(a.opt.DataDir, disk.Options{Told: a.storeTold})
	if err != nil {
		return nil, unopened(err, a.opt.DataDir)
	}
	a.store, a.inc = store, image.Incarnation
	if r := store.Report(); r.Torn {
		a.log.Warn("the log's last write was cut short by a crash and is dropped", "offset", r.Offset, "bytes", r.Bytes)
	}
	if a.spec, err = a.settleSpec(spec, &image); err != nil {
		return nil, err
	}
	a.tellFit(a.spec.Timing)
	a.shared.Store(a.spec)
	if a.run, err = openRunDir(a.opt.RunDir); err != nil {
		return nil, err
	}
	if err := a.run.reserve(len(a.spec.Groups)); err != nil {
		a.log.Warn("a full file system may keep this node from taking over", "cause", err)
	}
	record, err := a.run.load(boot)
	if err != nil {
		a.log.Warn("the run record is unreadable: this node begins as after a reboot", "cause", err)
		record = nil
	}
	var salt [4]byte
	_, _ = rand.Read(salt[:]) // it never fails (crypto/rand)
	b := &node.Boot{Boot: boot, Run: cluster.NewRun(store.Runs(), binary.LittleEndian.Uint32(salt[:])), Disk: image, Record: record, Lived: lived}
	a.clock.now()
	if err := a.openGate(b); err != nil {
		return nil, err
	}
	if err := a.openResources(b); err != nil {
		return nil, err
	}
	return b, a.openLinks(b.Run)
}

// unopened says what to do where a data directory can't be opened.
func unopened(err error, dir string) error {
	hint := "name another one with baton agent --data DIR, or mend this one: the agent must be able to write there"
	switch {
	case errors.Is(err, disk.ErrInUse):
		hint = "systemctl stop baton, or name another one with baton agent --data DIR"
	case errors.Is(err, disk.ErrCorrupt):
		hint = "move " + dir + " away, and start the agent again: the cluster lets it in anew, with an empty one"
	}
	return fail(exitFailed, hint, "%v", err)
}

// settleSpec takes the configuration that this node's log has come to, if it has one: from then on the
// configuration is the cluster's, and a local file that differs is not used.
func (a *agent) settleSpec(local *cluster.Spec, image *cluster.DiskImage) (*cluster.Spec, error) {
	a.keyFile = local.KeyFile
	spec, err := node.SpecOf(a.self, image, a.fitted(local), a.read)
	if err != nil {
		return nil, fail(exitFailed, "start it with the data directory of this node; or move "+a.opt.DataDir+" away, and baton join", "%s: %v", a.opt.DataDir, err)
	}
	if !bytes.Equal(spec.Text, local.Text) {
		a.log.Warn("the cluster file differs from the configuration of the cluster, and is not used", "file", a.opt.ConfigFile, "hint", "baton apply FILE, or baton config restore")
	}
	return spec, nil
}

// read reads a text that the log holds, for the core.
func (a *agent) read(text []byte) (*cluster.Spec, error) {
	spec, err := readKept("the cluster's configuration", text)
	if err != nil {
		return nil, err
	}
	spec.KeyFile = a.keyFile
	return a.fitted(spec), nil
}

// fitted fits this node's own timers to its disk: a sync is on the takeover's path. A lease shorter than
// the others' is safe, since each promise is for the length that is named.
func (a *agent) fitted(spec *cluster.Spec) *cluster.Spec {
	t := spec.Timing
	fitted, _, err := config.Derive(t.Takeover, t.Stall, max(t.Sync, a.store.SyncTime()), t.RTT)
	if err != nil {
		return spec // tellFit tells
	}
	fitted.Longest = t.L
	s := *spec
	s.Timing = fitted
	return &s
}

// tellFit tells how far this node's timers are from those of the file.
func (a *agent) tellFit(t cluster.Timing) {
	sync := a.store.SyncTime()
	if _, _, err := config.Derive(t.Takeover, t.Stall, max(t.Sync, sync), t.RTT); err != nil {
		a.log.Warn("this disk is too slow for the takeover asked for, which can't be promised", "sync", sync, "cause", err)
	} else if t.L < t.Longest {
		a.log.Warn("this disk is slow: this node's lease is shorter", "sync", sync, "lease", t.L, "file", t.Longest)
	}
}

// openGate opens the kernel's gate and closes what no run record speaks for.
func (a *agent) openGate(b *node.Boot) error {
	g, err := a.newGate()
	if err != nil {
		return err
	}
	a.gate = g
	if why := g.Why(); why != "" {
		a.log.Info("gate", "mechanism", g.Describe(), "cause", why)
	} else {
		a.log.Info("gate", "mechanism", g.Describe())
	}
	left, err := g.Left()
	if err != nil {
		return fmt.Errorf("read what stands in the gate: %w", err)
	}
	for _, s := range left {
		if x := a.spec.Group(s.Group); b.Record == nil || x == nil || x.Prefers(a.self) < 0 {
			if err := g.Set(s.Group, s.Epoch, 0); err != nil && !errors.Is(err, gate.ErrUnknownGroup) {
				return fmt.Errorf("close the gate of %s: %w", s.Group, err)
			}
			continue
		}
		end := a.clock.instant(s.Deadline)
		if s.Deadline != 0 { // what the core is told must be no earlier than what the kernel goes by
			if err := g.Set(s.Group, s.Epoch, a.clock.boottime(end)); err != nil {
				return fmt.Errorf("write the gate of %s anew: %w", s.Group, err)
			}
		}
		b.Gates = append(b.Gates, cluster.GateState{Group: s.Group, Epoch: s.Epoch, End: end})
	}
	return nil
}

// pinsSuffix makes, of the run directory's path, that of the gate's bpffs. It is not in the run directory, which people
// delete, and whose loss must not open a gate.
const pinsSuffix = "-gate"

func (a *agent) newGate() (gate.Gate, error) {
	if a.opt.NoGate {
		return noGate{}, allowNoGate(a.spec)
	}
	g, err := gate.Open(gate.Options{
		Cluster: a.spec.Cluster, Node: string(a.self), Prefer: a.opt.Prefer, SharedHost: a.opt.SharedHost, Log: a.log,
		Dir: a.opt.RunDir + pinsSuffix, Off: a.gateOff,
	})
	if err != nil {
		return nil, fmt.Errorf("no gate: nothing would cut this node off when its lease ends: %w", err)
	}
	return g, nil
}

// openResources makes a worker for each resource that this node may run, and asks what runs already. What a
// former run has left of resources that the file does not name any more goes; it is waited for a moment.
func (a *agent) openResources(b *node.Boot) error {
	if err := a.openOutputs(); err != nil {
		return err
	}
	a.slots = make(map[place]*slot)
	var fresh []*slot
	for _, g := range a.spec.Groups {
		for _, r := range a.resources(&g) {
			s := a.slot(a.spec.Cluster, g.ID, r)
			former, err := resource.Recall(s.env.RunDir)
			if err != nil {
				return err
			}
			s.left = former.Guards()
			a.slots[s.place] = s
			fresh = append(fresh, s)
		}
	}
	a.holds()
	a.retireLeftovers()
	if a.forgetRetired(); a.guardAt != 0 {
		return errors.New("the groups' addresses can't be guarded, as the log says")
	}
	for _, s := range fresh {
		var err error
		if s.worker, err = newWorker(s.kind, s.env, a.done); noRoom(err) {
			// What runs of it goes on running; it is found once there is room.
			a.log.Error("a resource can't be made: there is no room to note what runs", "resource", s.place, "cause", err)
			s.worker, err = resource.NewBroken(s.kind, s.env, a.done, err), nil
		}
		if err != nil {
			return err
		}
		a.follow(s.env)
	}
	b.Found = whatRuns(fresh)
	return nil
}

// whatRuns asks the resources side by side, and so takes over what runs already.
func whatRuns(slots []*slot) []cluster.Done {
	ctx, cancel := context.WithTimeout(context.Background(), adoptLimit)
	defer cancel()
	found := make([]cluster.Done, len(slots))
	turns := make(chan struct{}, adoptAtOnce)
	var asked sync.WaitGroup
	for i, s := range slots {
		turns <- struct{}{}
		asked.Go(func() {
			found[i] = cluster.Done{Group: s.group, Resource: s.resource, Status: s.worker.Adopt(ctx)}
			<-turns
		})
	}
	asked.Wait()
	return found
}

func (a *agent) openLinks(run cluster.RunID) error {
	keys := a.access.keys.present()
	sealer, err := wire.NewSealer(keys.First, a.self, run)
	if err != nil {
		return fmt.Errorf("the cluster key: %w", err)
	}
	a.links, err = link.Open(link.Config{Keys: keys.All(), Identity: a.access.identity, Sealer: sealer, Links: a.spec.Links,
		Address: func() netip.AddrPort { return apiAddress(a.spec, a.self) }, Others: a.access.take,
		Handler: func(from cluster.NodeID, run cluster.RunID, link int, m wire.Message) {
			a.inbox.packet(&node.Packet{From: from, Run: run, Link: link, Msg: m})
		},
		Changed: func(link string, up bool, detail string) {
			a.log.Info("link", "link", link, "up", up, "detail", detail)
		},
	})
	if err != nil {
		return err
	}
	a.access.keys.use = a.useKeys
	return a.inbox.listen(a.links)
}

// close lets go of everything; what runs, runs on, and the gate closes when the lease ends.
func (a *agent) close() error {
	var errs []error
	if a.links != nil {
		a.links.Close()
	}
	a.health.Close()
	close(a.persists)
	a.disk.Wait()
	a.endFitting()
	for _, s := range a.slots {
		s.close()
	}
	if a.outputs != nil {
		a.outputs.Close()
	}
	switch {
	case a.gate == nil:
	case a.bare:
		errs = append(errs, a.gate.Remove())
	default:
		errs = append(errs, a.gate.Close())
	}
	if a.store != nil {
		errs = append(errs, a.store.Close())
	}
	if a.setBack {
		aside, err := disk.SetAside(a.opt.DataDir, time.Now())
		if err == nil {
			a.log.Warn("what the data directory held was put aside", "in", aside)
		}
		errs = append(errs, err)
	}
	if a.inbox != nil {
		a.inbox.close()
	}
	return errors.Join(errs...)
}
