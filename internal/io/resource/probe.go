package resource

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"baton/internal/core/cluster"
	"baton/internal/io/bounded"
)

const (
	// CheckOutput is how much is kept of what a check's command prints: the end, in bytes.
	CheckOutput = 4 << 10
	// tailWait is how long is waited for the end of what it prints, where it has left something running.
	tailWait = 20 * time.Millisecond
	// probeHeader is the longest header of an HTTP answer to a check, in bytes. The body is not read.
	probeHeader = 64 << 10
)

// check asks a program on this node whether it is well. Exactly one of http, tcp and command is set.
type check struct {
	http     string
	tcp      string
	command  []string
	interval time.Duration
	timeout  time.Duration // of one try
	failures int           // so many in a row mean that the resource is ill
	client   *http.Client
}

// checkFields describes a check as data; several fields are added where it is repeated for good.
func checkFields(interval, timeout time.Duration, more ...cluster.FieldSpec) []cluster.FieldSpec {
	return append([]cluster.FieldSpec{
		{Name: "http", Type: cluster.FieldString, Doc: "URL that answers a GET with a status from 200 to 399; certificates are not checked"},
		{Name: "tcp", Type: cluster.FieldString, Doc: "HOST:PORT that accepts a connection"},
		{Name: "command", Type: cluster.FieldList, Doc: "program that exits with status 0, run as the resource's user"},
		{Name: "interval", Type: cluster.FieldDuration, Doc: "time between two tries", Default: interval},
		{Name: "timeout", Type: cluster.FieldDuration, Doc: "how long one try may take", Default: timeout},
	}, more...)
}

// newCheck reads a check, in which processFaults found nothing, from the resource's field of that name; nil: it has none.
func newCheck(fields map[string]any, name string, interval, timeout time.Duration, failures int64) (*check, error) {
	sub, err := field[map[string]any](fields, name, nil)
	if err != nil || sub == nil {
		return nil, err
	}
	c := &check{}
	var n int64
	for _, err := range []error{
		read(sub, "http", &c.http, ""),
		read(sub, "tcp", &c.tcp, ""),
		read(sub, "command", &c.command, nil),
		read(sub, "interval", &c.interval, interval),
		read(sub, "timeout", &c.timeout, timeout),
		read(sub, "failures", &n, failures),
	} {
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
	}
	c.failures = int(n)
	if c.http != "" {
		c.client = &http.Client{
			// A probe goes to this node, by whatever name its certificate has, and never through a proxy.
			Transport: &http.Transport{DialContext: dial, DisableKeepAlives: true, TLSClientConfig: &tls.Config{InsecureSkipVerify: true},
				MaxResponseHeaderBytes: probeHeader},
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		}
	}
	return c, nil
}

// once tries once. The error says what was asked and what came back.
func (c *check) once(ctx context.Context, run func(context.Context, []string) error) error {
	ctx, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	var what string
	var err error
	switch {
	case c.http != "":
		what, err = "GET "+c.http, c.get(ctx)
	case c.tcp != "":
		what, err = "connect to "+c.tcp, connect(ctx, c.tcp)
	default:
		what, err = strings.Join(c.command, " "), run(ctx, c.command)
	}
	if err == nil {
		return nil
	}
	if timeout, ok := errors.AsType[net.Error](err); errors.Is(ctx.Err(), context.DeadlineExceeded) || ok && timeout.Timeout() {
		return unwell{what, "no answer", fmt.Errorf("no answer within %s", c.timeout)}
	}
	return unwell{what, inShort(err), err}
}

// unwell is the answer of a check that failed.
type unwell struct {
	what  string // was asked
	short string // how it was answered, without what differs by node or time
	cause error
}

func (u unwell) Error() string { return fmt.Sprintf("%s: %v", u.what, u.cause) }
func (u unwell) Unwrap() error { return u.cause }

// probe returns question and answer in words that are the same on every node where they are; empty if it could not be
// asked, for what this host lacks.
func (u unwell) probe() string {
	if fromSurroundings(u.cause) {
		return ""
	}
	return u.what + ": " + u.short
}

// status is how a check's command ended, or what a server answered, with more words for people.
type status struct{ short, more string }

func (s status) Error() string {
	if s.more == "" {
		return s.short
	}
	return s.short + ": " + s.more
}

// unasked is why a check could not be asked, though nothing says that it never can be: the directory of users is away.
type unasked struct{ cause error }

func (u unasked) Error() string { return u.cause.Error() }
func (u unasked) Unwrap() error { return u.cause }

// couldNotAsk tells whether a check has failed before it asked anything, for want of what the host lacks at the moment.
func couldNotAsk(err error) bool {
	_, ok := errors.AsType[unasked](err)
	return ok || Exhausted(err)
}

// account is who the program runs as, looked up once: a directory of users that is away is no reason to ask it nothing.
func (p *process) account() (account, error) {
	if known := p.owner.Load(); known != nil {
		return *known, nil
	}
	owner, err := lookupAccount(p.user)
	if err == nil {
		p.owner.Store(&owner)
	}
	return owner, err
}

// inShort tells how a check failed without what differs by node or time.
func inShort(err error) string {
	if s, ok := errors.AsType[status](err); ok {
		return s.short
	}
	if errno, ok := errors.AsType[unix.Errno](err); ok {
		return errno.Error()
	}
	return "failed"
}

func (c *check) get(ctx context.Context) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, c.http, nil)
	if err != nil {
		return err
	}
	request.Header.Set("User-Agent", "baton")
	response, err := c.client.Do(request)
	if err != nil {
		if outer, ok := errors.AsType[*url.Error](err); ok {
			err = outer.Err // it would repeat the URL
		}
		return err
	}
	response.Body.Close()
	if response.StatusCode < 200 || response.StatusCode > 399 {
		return status{short: shorten(response.Status)}
	}
	return nil
}

// dial connects. What "localhost" is, is asked of nobody (RFC 6761, 6.3): neither a file nor a name server need be there.
func dial(ctx context.Context, network, address string) (net.Conn, error) {
	var dialer net.Dialer
	host, port, err := net.SplitHostPort(address)
	if name := strings.ToLower(strings.TrimSuffix(host, ".")); err != nil || name != "localhost" && !strings.HasSuffix(name, ".localhost") {
		return dialer.DialContext(ctx, network, address)
	}
	conn, err := dialer.DialContext(ctx, network, net.JoinHostPort("127.0.0.1", port))
	if err != nil {
		if v6, err6 := dialer.DialContext(ctx, network, net.JoinHostPort("::1", port)); err6 == nil {
			return v6, nil
		}
	}
	return conn, err
}

func connect(ctx context.Context, address string) error {
	conn, err := dial(ctx, "tcp", address)
	if err != nil {
		if outer, ok := errors.AsType[*net.OpError](err); ok {
			err = outer.Err // it would repeat the address
		}
		return err
	}
	return conn.Close()
}

// runCheck runs a check's command in the surroundings of the resource and its cgroup, and kills what is
// left of it when the context ends.
func (p *process) runCheck(ctx context.Context, argv []string) error {
	owner, err := p.account()
	if err != nil {
		return lacking(unasked{err})
	}
	out, end, err := newTailPipe()
	if err != nil {
		return fmt.Errorf("pipe for the output: %w", err)
	}
	defer end.close()
	defer out.Close()
	in, err := os.Open(os.DevNull)
	if err != nil {
		return err
	}
	defer in.Close()
	l := launch{argv: argv, dir: p.dir, env: p.environment(owner, p.seen()), owner: owner, in: in, out: out}
	if group, err := p.group.open(); err == nil {
		defer group.Close()
		l.group = group
	}
	pid, pidfd, err := l.start()
	if err != nil {
		return err
	}
	out.Close()
	defer pidfd.Close()
	killed := make(chan struct{})
	stop := context.AfterFunc(ctx, func() { unix.Kill(-pid, unix.SIGKILL); close(killed) })
	err = awaitExit(pidfd)
	if !stop() {
		<-killed // before the pid is free for others
		err = context.Cause(ctx)
	}
	unix.Kill(-pid, unix.SIGKILL)
	var ws unix.WaitStatus
	if _, waitErr := unix.Wait4(pid, &ws, 0, nil); err == nil {
		err = waitErr
	}
	if err != nil || ws.Exited() && ws.ExitStatus() == 0 {
		return err
	}
	return status{describe(ws), shorten(end.text())}
}

// tailPipe reads what a program prints into a pipe, and keeps the end of it.
type tailPipe struct {
	from *os.File
	read chan struct{} // closed when nothing more is read
	mu   sync.Mutex
	kept bounded.Tail
}

// newTailPipe returns the end of the pipe that the program gets, and what reads the other.
func newTailPipe() (to *os.File, t *tailPipe, err error) {
	from, to, err := os.Pipe()
	if err != nil {
		return nil, nil, err
	}
	t = &tailPipe{from: from, read: make(chan struct{}), kept: bounded.Tail{Limit: CheckOutput}}
	go t.run()
	return to, t, nil
}

func (t *tailPipe) run() {
	defer close(t.read)
	buffer := make([]byte, 16<<10)
	for {
		n, err := t.from.Read(buffer)
		t.mu.Lock()
		_, _ = t.kept.Write(buffer[:n]) // it takes all
		t.mu.Unlock()
		if err != nil {
			return
		}
	}
}

// text returns the end of what was printed, once all is read that a program which has ended had printed. What it has
// left running may hold the pipe open, and is not waited for.
func (t *tailPipe) text() string {
	_ = t.from.SetReadDeadline(time.Now().Add(tailWait))
	<-t.read
	t.mu.Lock()
	defer t.mu.Unlock()
	return string(t.kept.Bytes())
}

// close ends the reading.
func (t *tailPipe) close() {
	t.from.Close()
	<-t.read
}
