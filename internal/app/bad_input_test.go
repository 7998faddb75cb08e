package app

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/alecthomas/kong"

	"baton/internal/core/cluster"
	"baton/internal/core/wire"
	"baton/internal/io/api"
	"baton/internal/io/disk"
	"baton/internal/io/identity"
)

// badInput is one mistake, and what the user is told.
type badInput struct {
	what  string
	args  string // $NAME stands for what the scene has under that name
	code  int
	line  string // that tells what is wrong and where; … stands for the rest
	hint  string
	place bool     // of the cluster file: the line begins with file, line and column, and the source line follows
	more  []string // of the environment
}

// badInputs are mistakes of every kind, which docs/reference/errors.md shows. The scene is a host with an agent that
// answers for a healthy cluster (at $SOCKET, and from afar at $REMOTE), and one whose cluster is still forming ($FORMING).
var badInputs = slices.Concat(badLines, badFiles, badKeys, badData, badSockets, badNames, badRemotes, badInvitations)

// badLines are mistakes in the command line.
var badLines = []badInput{
	{what: "no such command", args: "frobnicate", code: 2, line: "unexpected argument frobnicate", hint: "baton --help lists the commands"},
	{what: "a typing error", args: "stauts", code: 2, line: `unexpected argument stauts, did you mean one of "status", "start"?`, hint: "baton --help lists the commands"},
	{what: "no such flag", args: "status --wiat", code: 2, line: `unknown flag --wiat, did you mean "--wait"?`, hint: "baton status --help"},
	{what: "an argument is missing", args: "switch", code: 2, line: "<group> is missing", hint: "baton switch --help"},
	{what: "an argument too many", args: "switch orders beta", code: 2, line: "unexpected argument beta", hint: "baton switch --help"},
	{what: "half of a command", args: "token", code: 2, line: `expected one of "add", "list", "revoke"`, hint: "baton token --help"},
	{what: "a flag is missing", args: "token add ci", code: 2, line: "--role=ROLE is missing", hint: "baton token add --help"},
	{what: "no such word", args: "token add ci --role king", code: 2, line: `--role: "king" is none of "view","operate","admin"`, hint: "baton token add --help"},
	{what: "a flag without its value", args: "plan --if", code: 2, line: "--if needs a value", hint: "baton plan --help"},
	{what: "a list without its values", args: "form --without", code: 2, line: "--without needs a value", hint: "baton form --help"},
	{what: "no length of time", args: "drain alpha --for soon", code: 2, line: `--for: "soon" is no length of time, such as 30s or 5m`, hint: "baton drain --help"},
	{what: "an unknown unit", args: "pause --for 3x", code: 2, line: `--for: "3x" is no length of time, such as 30s or 5m`, hint: "baton pause --help"},
	{what: "a negative time", args: "drain alpha --for -5m", code: 2, line: `--for: "-5m" looks like a flag; if it is the value: --for="-5m"`, hint: "baton drain --help"},
	{what: "a negative time, insisted on", args: "drain alpha --for=-5m", code: 2, line: "nothing can stand for -5m0s", hint: "for example --for 30m"},
	{what: "no number", args: "history -n x", code: 2, line: `--limit: "x" is no whole number`, hint: "baton history --help"},
	{what: "two flags that exclude each other", args: "status --watch --wait", code: 2, line: "--watch and --wait can't be used together", hint: "baton status --help"},
	{what: "no seed", args: "simulate --seeds x", code: 2, line: `"x" is neither a seed nor a range of them, such as 1..100`, hint: "baton simulate --help"},
	{what: "a range that ends before it begins", args: "simulate --seeds 9..1", code: 2, line: `"9..1" is no range of seeds: it ends before it begins`, hint: "baton simulate --help"},
	{what: "a flag of other commands", args: "simulate --json", code: 2, line: "unknown flag --json", hint: "baton simulate --help"},
	{what: "the same, before the command", args: "--json simulate", code: 2, line: "unknown flag --json", hint: "baton simulate --help"},
	{what: "a script and seeds", args: "simulate $DIR/none --seeds 7", code: 2, line: "--seeds and a script ($DIR/none) can't be used together", hint: "baton simulate --help"},
	{what: "a planted bug in a plain binary", args: "simulate --hunt", code: 2, line: "--hunt: only in a binary built with -tags planted", hint: "baton simulate --help"},
	{what: "no file", args: "simulate /dev/zero", code: 2, line: "read the script: /dev/zero is no regular file", hint: "baton simulate --help"},
	{what: "no such profile", args: "simulate --profile calm", code: 2, line: `no profile "calm"; there are …`, hint: "baton simulate --help"},
	{what: "no such script", args: "simulate $DIR/none", code: 2, line: "read the script: open $DIR/none: no such file or directory", hint: "baton simulate --help"},
	{what: "to go back to no revision", args: "config rollback x", code: 2, line: `[<revision>]: "x" is no whole number`, hint: "baton config rollback --help"},
	{what: "a cluster without a name", args: "init", code: 2, line: "the cluster has no name: --cluster NAME", hint: "baton init --help, or run it on a terminal: it asks"},
	{what: "a shell that it does not know", args: "completion tcsh", code: 2, line: `<shell>: "tcsh" is none of "bash","zsh","fish"`, hint: "baton completion --help"},
}

// badFiles are mistakes in the cluster file, and where it is named.
var badFiles = []badInput{
	{what: "there is none", args: "agent --config $DIR/none.yaml", code: 2, line: "read the cluster file $DIR/none.yaml: no such file or directory", hint: "on the first node baton init makes it, on others baton join fetches it; or name it: baton agent --config FILE"},
	{what: "it is a directory", args: "agent --config $DIR", code: 2, line: "read the cluster file $DIR: is a directory", hint: "name the cluster file with baton agent --config FILE"},
	{what: "an unknown key", args: "agent --config $DIR/key.yaml", code: 2, place: true, line: `$DIR/key.yaml:2:1: unknown key "nodez" in the cluster file`, hint: `write "nodes"`},
	{what: "a bad value", args: "agent --config $DIR/value.yaml", code: 2, place: true, line: `$DIR/value.yaml:2:11: takeover: "fast" is no duration`, hint: "write it like 250ms, 3s, 10m or 1h30m"},
	{what: "no YAML", args: "agent --config $DIR/yaml.yaml", code: 2, place: true, line: "$DIR/yaml.yaml:2:8: this is not YAML: sequence end token ']' not found", hint: "what belongs together begins in the same column, and every { and [ needs its end; look at the line above, too"},
	{what: "no text", args: "agent --config $DIR/binary.yaml", code: 2, place: true, line: "$DIR/binary.yaml:1:1: this line is not UTF-8", hint: "save it as UTF-8"},
	{what: "it is empty", args: "agent --config $DIR/empty.yaml", code: 2, place: true, line: "$DIR/empty.yaml:1:1: the file is empty", hint: "baton init writes a first cluster file"},
	{what: "to change a cluster there is none", args: "apply $DIR/none.yaml", code: 2, line: "read the cluster file $DIR/none.yaml: no such file or directory", hint: "name another one: baton apply FILE"},
	{what: "to change a cluster an unknown key", args: "apply $DIR/key.yaml", code: 2, place: true, line: `$DIR/key.yaml:2:1: unknown key "nodez" in the cluster file`, hint: `write "nodes"`},
	{what: "a node that it does not name", args: "agent --config $DIR/good.yaml --node delta", code: 2, line: `node "delta" is not in the cluster file, which names alpha, beta, gamma`, hint: "name it: baton agent --node NAME"},
}

// badKeys are mistakes with the cluster's key.
var badKeys = []badInput{
	{what: "there is none", args: "agent --config $DIR/keyless.yaml --node alpha", code: 2, line: "read the cluster key $DIR/none: no such file or directory", hint: "make one with baton keygen $DIR/none, and copy it to every node"},
	{what: "it was cut short", args: "agent --config $DIR/badkey.yaml --node alpha", code: 2, line: "$DIR/badkey: read cluster key: 5 bytes, a key with its checksum has 36: the line was cut or is two lines", hint: "copy the key anew from another node"},
	{what: "it would be overwritten", args: "keygen $DIR/key", code: 1, line: "$DIR/key is there already, and a key is never overwritten", hint: "if no cluster uses it: rm $DIR/key"},
	{what: "it can't be written", args: "keygen $DIR/none/key", code: 1, line: "write the key to $DIR/none/key: no such file or directory", hint: "name a file in a directory that is there, and run it as root"},
}

// badData are mistakes with the data directory.
var badData = []badInput{
	{what: "another node's", args: "agent --config $DIR/good.yaml --node alpha --data $DIR/beta --run $DIR/run", code: 1, line: "$DIR/beta: the data directory is that of node beta, not of alpha", hint: "start it with the data directory of this node; or move $DIR/beta away, and baton join"},
	{what: "another agent has it", args: "agent --config $DIR/good.yaml --node alpha --data $DIR/held --run $DIR/run", code: 1, line: "open data directory $DIR/held: data directory is in use: another agent (process PID) uses it", hint: "systemctl stop baton, or name another one with baton agent --data DIR"},
	{what: "it is a file", args: "agent --config $DIR/good.yaml --node alpha --data $DIR/key --run $DIR/run", code: 1, line: "open data directory $DIR/key: mkdir $DIR/key: not a directory", hint: "name another one with baton agent --data DIR, or mend this one: the agent must be able to write there"},
	{what: "it was spoilt", args: "agent --config $DIR/good.yaml --node alpha --data $DIR/spoilt --run $DIR/run", code: 1, line: "open data directory $DIR/spoilt: data directory is corrupt: $DIR/spoilt/log, byte 0: the first record is broken: the disk lost or changed what it had confirmed, and nothing of it may be used", hint: "move $DIR/spoilt away, and start the agent again: the cluster lets it in anew, with an empty one"},
}

// badSockets are an agent that is not where it is looked for, or is where it should not be.
var badSockets = []badInput{
	{what: "no agent", args: "status --socket $DIR/none.sock", code: 3, line: "no agent reached at $DIR/none.sock: no agent listens there", hint: "systemctl start baton, or name another socket with --socket or BATON_SOCKET"},
	{what: "no socket", args: "status --socket $DIR/key", code: 3, line: "no agent reached at $DIR/key: no agent listens there", hint: "systemctl start baton, or name another socket with --socket or BATON_SOCKET"},
	{what: "no agent behind it", args: "status --socket $DIR/silent.sock --json", code: 3, line: "no agent reached at $DIR/silent.sock: the agent ended the connection", hint: "systemctl start baton, or name another socket with --socket or BATON_SOCKET"},
	{what: "an agent runs already", args: "agent --dismantle --config $DIR/good.yaml --node alpha", code: 1, line: "an agent runs here ($SOCKET)", hint: "systemctl stop baton"},
}

// badNames are names of what the cluster does not have.
var badNames = []badInput{
	{what: "no such group", args: "explain mail", code: 1, line: `there is no group "mail"`, hint: "the groups are: orders"},
	{what: "no such entry", args: "explain 99", code: 1, line: "the history has no entry 99: it reaches from 3 to 702, and not every number has one", hint: "baton history lists the entries"},
	{what: "no such fault", args: "plan --if rain", code: 2, line: `"rain" is no fault`, hint: "baton plan --help lists the faults"},
	{what: "a cluster that forms", args: "explain orders --socket $FORMING", code: 1, line: "the cluster is still forming: gamma is not heard", hint: "baton status --wait"},
}

// badRemotes are mistakes from afar.
var badRemotes = []badInput{
	{what: "no such context", args: "--context prod status", code: 2, line: `there is no context "prod", nor any other`, hint: "baton context add, as baton token add prints it on a node"},
	{what: "nobody to believe", args: "--address $REMOTE status", code: 2, line: "nothing says which authority to believe", hint: "baton context add, as baton token add prints it on a node; or BATON_AUTHORITY=sha256:…"},
	{what: "a fingerprint cut short", args: "context add x $REMOTE --authority sha256:12 --token $TOKEN", code: 2, line: `"sha256:12" is no fingerprint: it is sha256: and 64 hexadecimal digits`, hint: "baton token add prints it on a node"},
	{what: "another cluster's fingerprint", args: "context add x $REMOTE --authority $OTHERPIN --token $TOKEN", code: 1, line: "context x ($REMOTE): its certificate is not of the cluster that is expected there: its authority is $PIN", hint: "if the cluster's key was changed: add the context anew, with the fingerprint that baton token add prints on a node"},
	{what: "a token cut short", args: "context add x $REMOTE --authority $PIN --token $CUTTOKEN", code: 2, line: "the token was cut short or changed", hint: "copy it again as a whole"},
	{what: "an invitation for a token", args: "context add x $REMOTE --authority $PIN --token $INVITATION", code: 2, line: "that is an invitation, which is for baton join, and no token", hint: "an administrator makes one on a node: baton token add NAME --role ROLE"},
	{what: "no token at all", args: "context add x $REMOTE --authority $PIN --token secret", code: 2, line: "that is no token: a token begins with bt1_", hint: "an administrator makes one on a node: baton token add NAME --role ROLE"},
	{what: "a token that was revoked", args: "context add x $REMOTE --authority $PIN --token $OTHERTOKEN", code: 1, line: "context x ($REMOTE): the token is not valid here: it was revoked, or is another cluster's", hint: "an administrator makes one: baton token add NAME --role ROLE"},
	{what: "nobody there", args: "--address 127.0.0.1:1 status", code: 3, line: "no agent reached at 127.0.0.1:1: no agent listens there",
		hint: "does a node's agent run there, and does a firewall let TCP through? baton check prints the rules", more: []string{"BATON_AUTHORITY=$PIN", "BATON_TOKEN=$TOKEN"}},
	{what: "a role too low", args: "--address $REMOTE switch orders", code: 1, line: "$REMOTE: token ci has the role view, and this needs operate",
		hint: "have an administrator make another one: baton token add NAME --role operate", more: []string{"BATON_AUTHORITY=$PIN", "BATON_TOKEN=$TOKEN"}},
	{what: "a token cut short", args: "--address $REMOTE status", code: 2, line: "the token was cut short or changed", hint: "copy it again as a whole", more: []string{"BATON_AUTHORITY=$PIN", "BATON_TOKEN=$CUTTOKEN"}},
}

// badInvitations are mistakes with invitations.
var badInvitations = []badInput{
	{what: "no invitation", args: "join $REMOTE secret", code: 2, line: "that is no invitation: an invitation begins with bi1_", hint: "baton invite NODE prints the whole line on a node of the cluster"},
	{what: "a token", args: "join $REMOTE $TOKEN", code: 2, line: "that is a token for remote use, and no invitation", hint: "baton invite NODE prints the whole line on a node of the cluster"},
	{what: "cut short", args: "join $REMOTE $CUTINVITATION", code: 2, line: "the invitation was cut short or changed", hint: "copy the whole line again"},
	{what: "used twice", args: "join $REMOTE $USED $JOIN", code: 1, line: "$REMOTE: the invitation was used already, AGO ago", hint: "make another one on a node of the cluster: baton invite NODE"},
	{what: "late", args: "join $REMOTE $LATE $JOIN", code: 1, line: "$REMOTE: the invitation has ended, AGO ago", hint: "make another one on a node of the cluster: baton invite NODE"},
	{what: "of another agent, or before a restart", args: "join $REMOTE $FORGOTTEN $JOIN", code: 1, line: "$REMOTE: the invitation is not known to this agent: an agent knows only those that it gave since it was started", hint: "make another one on a node of the cluster: baton invite NODE"},
	{what: "for another node", args: "join $REMOTE $INVITATION $JOIN --node gamma", code: 1, line: "$REMOTE: the invitation is for beta, and this host is gamma", hint: "run it on beta; or with --node beta if that is what the cluster file calls this host; or baton invite gamma"},
	{what: "of another cluster", args: "join $REMOTE $OTHERINVITATION $JOIN", code: 1, line: "$REMOTE: its certificate is not of the cluster that is expected there: its authority is $PIN", hint: "is the address right? If the key was changed meanwhile: baton invite again"},
	{what: "the wrong address", args: "join 127.0.0.1:1 $INVITATION $JOIN", code: 3, line: "no agent reached at 127.0.0.1:1: no agent listens there", hint: "is the agent running there, and does a firewall let TCP 1 through? baton check prints the rules"},
	{what: "another file is there", args: "join $REMOTE $INVITATION $JOIN --config $DIR/key.yaml", code: 1, line: "$DIR/key.yaml is there already, and differs from the cluster's; nothing was changed", hint: "move it away, or replace it with --force"},
	{what: "another key is there", args: "join $REMOTE $INVITATION $JOIN --key $DIR/badkey", code: 1, line: "$DIR/badkey is there already, and differs from the cluster's; nothing was changed", hint: "move it away, or replace it with --force"},
	{what: "another cluster's data is there", args: "join $REMOTE $INVITATION $JOIN --data $DIR/beta", code: 1, line: "$DIR/beta holds the data of another cluster (ledger-b), not of ledger", hint: "if that one is no longer needed on this host, move $DIR/beta away"},
	{what: "an agent runs there", args: "join $REMOTE $INVITATION $JOIN --data $DIR/held", code: 1, line: "an agent runs on $DIR/held already", hint: "systemctl stop baton, if this host is to join"},
}

// inviter is a distant stage that invites.
type inviter struct {
	*distant
	invitations *invitations
}

func (h *inviter) Invited(secret []byte) (cluster.NodeID, error) {
	return h.invitations.find(secret, false)
}

func (h *inviter) Welcome(_ context.Context, secret []byte, use bool) (api.Welcome, error) {
	node, err := h.invitations.find(secret, use)
	return api.Welcome{Cluster: "ledger", ID: "ledger-a", Node: node, KeyFile: "/none", File: []byte("file"), Key: []byte("key")}, err
}

// clusterFile is a good one; more is appended.
const clusterFile = `cluster: ledger
takeover: 3s
nodes: { alpha: { address: 10.77.0.11 }, beta: { address: 10.77.0.12 }, gamma: { address: 10.77.0.13, role: witness } }
groups: { orders: { nodes: [alpha, beta], resources: [ vip: 10.77.0.50/24 ] } }
`

// setScene makes the host on which the mistakes are made. It returns what the names stand for.
func setScene(t *testing.T) map[string]string {
	t.Helper()
	dir := t.TempDir()
	write := func(name, text string) {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	key := wire.FormatKey(distantKey)
	write("key", key)
	write("badkey", key[:20]+"\n")
	write("good.yaml", clusterFile+"key_file: "+dir+"/key\n")
	write("keyless.yaml", clusterFile+"key_file: "+dir+"/none\n")
	write("badkey.yaml", clusterFile+"key_file: "+dir+"/badkey\n")
	write("key.yaml", "cluster: ledger\nnodez: {}\n")
	write("empty.yaml", "")
	write("value.yaml", strings.Replace(clusterFile, "3s", "fast", 1))
	write("yaml.yaml", "cluster: ledger\nnodes: [}\n")
	write("binary.yaml", "\xff\xfe\x00\x01")
	dataOf(t, filepath.Join(dir, "beta"), clusterFile)
	held, _, err := disk.Open(filepath.Join(dir, "held"), disk.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { held.Close() })
	spoil(t, filepath.Join(dir, "spoilt"))
	silent, err := net.Listen("unix", filepath.Join(dir, "silent.sock"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { silent.Close() })
	go hangUp(silent)

	id, err := identity.New("alpha", [][]byte{distantKey})
	if err != nil {
		t.Fatal(err)
	}
	h := &inviter{&distant{healthy(), id}, new(invitations)}
	names := map[string]string{"DIR": dir, "SOCKET": serveStage(t, healthy()), "FORMING": serveStage(t, forming()), "REMOTE": serveAfar(t, h, id),
		"PIN": id.Fingerprint().String(), "OTHERPIN": "sha256:" + strings.Repeat("ab", 32), "TOKEN": identity.FormatToken(distantSecret),
		"OTHERTOKEN": identity.FormatToken(distantKey),
		"JOIN":       fmt.Sprintf("--node beta --no-check --config %s/joined/cluster.yaml --key %s/joined/key --data %s/joined/data", dir, dir, dir)}
	names["CUTTOKEN"] = names["TOKEN"][:20]
	h.invite(t, names, id.Fingerprint())
	return names
}

// dataOf makes the data directory of beta in a cluster.
func dataOf(t *testing.T, dir, file string) {
	t.Helper()
	store, image, err := disk.Open(dir, disk.Options{})
	if err != nil {
		t.Fatal(err)
	}
	f := &cluster.Founding{ID: "ledger-b", File: []byte(file), Nodes: []cluster.FoundingNode{
		{Node: "alpha", Incarnation: 1}, {Node: "beta", Incarnation: image.Incarnation}, {Node: "gamma", Incarnation: 3}}}
	if err := errors.Join(store.Write(cluster.Persist{N: 1, Founding: f.Encode(), Sync: true}), store.Close()); err != nil {
		t.Fatal(err)
	}
}

// spoil makes a data directory whose log has other bytes than were written.
func spoil(t *testing.T, dir string) {
	t.Helper()
	dataOf(t, dir, clusterFile)
	name := filepath.Join(dir, "log")
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	for i := range min(64, len(b)) {
		b[i] ^= 0x5a
	}
	if err := os.WriteFile(name, b, 0o600); err != nil {
		t.Fatal(err)
	}
}

// hangUp ends every connection without a word.
func hangUp(l net.Listener) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		c.Close()
	}
}

// invite makes one invitation of each sort.
func (h *inviter) invite(t *testing.T, names map[string]string, pin identity.Fingerprint) {
	t.Helper()
	secret := func(node cluster.NodeID) []byte {
		s, _, err := h.invitations.make(node, 15*time.Minute)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	line := func(pin identity.Fingerprint, s []byte) string {
		return identity.Invitation{Pin: pin, Secret: s}.Format()
	}
	used, late := secret("alpha"), secret("gamma")
	h.invitations.all[0].used = time.Now().Add(-time.Minute)
	h.invitations.all[1].until = time.Now().Add(-time.Minute)
	good := secret("beta")
	forgotten, err := identity.NewSecret(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	names["USED"], names["LATE"], names["FORGOTTEN"], names["INVITATION"] = line(pin, used), line(pin, late), line(pin, forgotten), line(pin, good)
	names["OTHERINVITATION"] = line(identity.Fingerprint{7}, good)
	names["CUTINVITATION"] = names["INVITATION"][:40]
}

// noise is what no user should read.
var noise = regexp.MustCompile(`%!|rpc error|\bEOF\b|connect: |dial (unix|tcp)|context deadline|strconv\.|goroutine|0x[0-9a-f]{6}|proto:|unmarshal|<nil>|stat /|open /dev`)

// pid and ago are never the same twice.
var pid, ago = regexp.MustCompile(`process \d+`), regexp.MustCompile(`\b1m\d+s ago`)

var commandInHint = regexp.MustCompile(`baton ([a-z]+)((?: [a-z]+)?)`)

// checkForm judges how something is told: one line, in lower case, without the noise of the libraries, and a hint
// whose commands exist.
func checkForm(t *testing.T, what, line, hint string) {
	t.Helper()
	switch {
	case line == "" || strings.Contains(line, "\n") || len(line) > 400:
		t.Errorf("%s: not one clear line: %q", what, line)
	case line[0] >= 'A' && line[0] <= 'Z' || strings.HasSuffix(line, "."):
		t.Errorf("%s: it begins with a capital, or ends with a full stop: %q", what, line)
	case noise.MatchString(line + hint):
		t.Errorf("%s: %q in %q, hint %q", what, noise.FindString(line+hint), line, hint)
	case hint == "":
		t.Errorf("%s: no hint: %q", what, line)
	}
	model := commandModel(t)
	for _, m := range commandInHint.FindAllStringSubmatch(hint, -1) {
		if !slices.ContainsFunc(model.Children, func(c *kong.Node) bool { return c.Name == m[1] }) {
			t.Errorf("%s: the hint %q names the command baton %s, which does not exist", what, hint, m[1])
		}
	}
}

// TestBadInput makes every mistake of the table with the real binary.
func TestBadInput(t *testing.T) {
	binary, names := buildBaton(t), setScene(t)
	home := t.TempDir()
	longest := func(text string) string { // the values' names in place of the values, longest value first
		keys := []string{}
		for k := range names {
			keys = append(keys, k)
		}
		slices.SortFunc(keys, func(a, b string) int { return len(names[b]) - len(names[a]) })
		for _, k := range keys {
			text = strings.ReplaceAll(text, names[k], "$"+k)
		}
		return text
	}
	for _, b := range badInputs {
		args := strings.Fields(os.Expand(b.args, func(k string) string { return names[k] }))
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		cmd := exec.CommandContext(ctx, binary, args...)
		cmd.Env = append(os.Environ(), "BATON_SOCKET="+names["SOCKET"], "HOME="+home, "XDG_CONFIG_HOME="+home)
		if strings.Contains(b.args, "--address") || strings.Contains(b.args, "--context") {
			cmd.Env = append(cmd.Env, "BATON_SOCKET=")
		}
		for _, e := range b.more {
			cmd.Env = append(cmd.Env, os.Expand(e, func(k string) string { return names[k] }))
		}
		var out, errOut bytes.Buffer
		cmd.Stdout, cmd.Stderr = &out, &errOut
		err := cmd.Run()
		cancel()
		what := "baton " + b.args + " (" + b.what + ")"
		code := cmd.ProcessState.ExitCode()
		lines := strings.Split(strings.TrimSuffix(longest(errOut.String()), "\n"), "\n")
		lines = slices.DeleteFunc(lines, func(l string) bool { return strings.HasPrefix(l, "time=") }) // the agent's log
		if err == nil || code != b.code || out.Len() > 0 {
			t.Errorf("%s: exit %d, want %d; on the standard output %q", what, code, b.code, out.String())
		}
		if b.place { // between them, the source line and a mark below it
			lines = []string{"error: " + lines[0], lines[len(lines)-1]}
		}
		if len(lines) != 2 || !strings.HasPrefix(lines[0], "error: ") || !strings.HasPrefix(lines[1], "hint: ") {
			t.Errorf("%s: not a line and a hint:\n%s", what, longest(errOut.String()))
			continue
		}
		lines[0] = ago.ReplaceAllString(pid.ReplaceAllString(lines[0], "process PID"), "AGO ago")
		line, hint := strings.TrimPrefix(lines[0], "error: "), strings.TrimPrefix(lines[1], "hint: ")
		start, open := strings.CutSuffix(b.line, "…")
		if line != b.line && !(open && strings.HasPrefix(line, start)) || hint != b.hint {
			t.Errorf("%s:\n  line %q\n  hint %q", what, line, hint)
		}
		checkForm(t, what, line, hint)
	}
}

// TestBadRequests: what is wrong with a call is said in one line, whoever calls.
func TestBadRequests(t *testing.T) {
	before := healthy()
	socket := serveStage(t, before)
	client := &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", socket)
	}}}
	for _, b := range []struct {
		what, path, body string
		status           int
		line, hint       string
	}{
		{"no such call", "/baton.v1.Baton/Explode", "{}", 501, "this agent knows no call /baton.v1.Baton/Explode", "baton version tells the agent's version"},
		{"no such service", "/baton.v1.Boat/Sink", "{}", 501, "this agent knows no call /baton.v1.Boat/Sink", "baton version tells the agent's version"},
		{"no JSON", "/baton.v1.Baton/Status", "hello", 400, "this is no StatusRequest: line 1:1: invalid value hello", "it takes no field"},
		{"cut short", "/baton.v1.Baton/Switch", `{"group": "ord`, 400, "this is no SwitchRequest: it ends too soon, or is no JSON", "its fields are group, to, dryRun, noWait"},
		{"an unknown field", "/baton.v1.Baton/Switch", `{"group": "orders", "dryrum": true}`, 400, `this is no SwitchRequest: line 1:21: unknown field "dryrum"`, "its fields are group, to, dryRun, noWait"},
		{"a wrong type", "/baton.v1.Baton/History", `{"limit": "many"}`, 400, `this is no HistoryRequest: line 1:11: invalid value for uint32 field limit: "many"`, "its fields are group, limit"},
		{"too much", "/baton.v1.Baton/Switch", `{"group": "` + strings.Repeat("x", 3<<20) + `"}`, 429, "the request is larger than 2 MiB", "send less at once"},
		{"nothing is named", "/baton.v1.Baton/Switch", `{}`, 400, "no group is named", "baton status lists the groups"},
		{"an unknown group", "/baton.v1.Baton/Explain", `{"subject": "mail"}`, 404, `there is no group "mail"`, "the groups are: orders"},
		{"too long", "/baton.v1.Plan/Foresee", `{"whatIf": "` + strings.Repeat("x", 3<<10) + `"}`, 400, "the faults have 3072 bytes, and may have 2048", "ask for fewer faults at once"},
	} {
		answer, err := client.Post("http://baton"+b.path, "application/json", strings.NewReader(b.body))
		if err != nil {
			t.Errorf("%s: %v", b.what, err)
			continue
		}
		var told struct {
			Message string
			Details []struct{ Debug struct{ Hint string } }
		}
		err = json.NewDecoder(answer.Body).Decode(&told)
		answer.Body.Close()
		if err != nil || len(told.Details) != 1 {
			t.Errorf("%s: %v in %+v", b.what, err, told)
			continue
		}
		line, hint := strings.ReplaceAll(told.Message, "\u00a0", " "), told.Details[0].Debug.Hint
		if answer.StatusCode != b.status || line != b.line || hint != b.hint {
			t.Errorf("%s: status %d\n  line %q\n  hint %q", b.what, answer.StatusCode, line, hint)
		}
		checkForm(t, b.what, line, hint)
	}
	if n := len(before.asked); n > 0 {
		t.Errorf("%d of these moved something", n)
	}
}

// TestClocksApart: certificates are good for a time, so clocks apart by hours are told of; leases need no clocks.
func TestClocksApart(t *testing.T) {
	var errOut bytes.Buffer
	k := &console{ctx: t.Context(), err: &errOut}
	now := time.Date(2026, 3, 1, 3, 0, 0, 0, time.UTC)
	k.remote = &remoteContext{}
	code := finish(k, k.troubleAt(&identity.ClockError{Now: now, From: now.Add(5 * time.Hour), Until: now.Add(40 * 24 * time.Hour)}, "10.77.0.11"))
	line, hint, _ := strings.Cut(strings.TrimSuffix(errOut.String(), "\n"), "\n")
	line, hint = strings.TrimPrefix(line, "error: "), strings.TrimPrefix(hint, "hint: ")
	checkForm(t, "clocks apart", line, hint)
	if code != exitFailed || line != "the clocks are apart: this host's says 2026-03-01 03:00:00, and the other's certificate is valid from 2026-03-01 08:00:00 to 2026-04-10 03:00:00" ||
		hint != "set the clock that is wrong; chronyc tracking tells about this host's" {
		t.Errorf("exit %d\n  line %q\n  hint %q", code, line, hint)
	}
}
