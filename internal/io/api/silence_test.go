package api

import (
	"errors"
	"net"
	"net/http"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"connectrpc.com/connect"

	batonv1 "baton/api/v1"
	"baton/api/v1/batonv1connect"
)

// A frozen agent listens on, and answers nothing: no request waits for it without end, be it before or within an answer.
func TestFrozenAgentIsGivenUp(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("unix", filepath.Join(t.TempDir(), "socket"))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	c := Dial(l.Addr().String())
	c.vital.after = time.Second // a machine that stands still for less is no frozen agent
	gaveUp := func(err error) {
		t.Helper()
		var s *SilentError
		if x := Explain(err); !errors.As(err, &s) || !x.Silent {
			t.Errorf("%v, explained as %+v", err, x)
		}
	}
	start := time.Now()
	_, err = c.Status(t.Context(), &batonv1.StatusRequest{})
	gaveUp(err)
	if took := time.Since(start); took < c.vital.after*3/2 || took > 30*time.Second {
		t.Errorf("after %v", took)
	}

	var frozen atomic.Bool
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == batonv1connect.BatonVersionProcedure {
			for frozen.Load() {
				select {
				case <-r.Context().Done():
					return
				case <-time.After(time.Millisecond):
				}
			}
			return
		}
		w.Header().Set("Content-Type", "application/connect+proto")
		w.(http.Flusher).Flush()
		<-r.Context().Done() // a stream of which nothing has come yet
	})}
	go server.Serve(l)
	defer server.Close()
	stream, err := c.Observe.Logs(t.Context(), &batonv1.LogsRequest{Follow: true})
	if err != nil {
		t.Fatal(err)
	}
	defer stream.Close()
	start = time.Now()
	alive := 3 * c.vital.after // for several questions
	time.AfterFunc(alive, func() { frozen.Store(true) })
	if stream.Receive() {
		t.Fatal("it received something")
	}
	gaveUp(stream.Err())
	if took := time.Since(start); took < alive {
		t.Errorf("a quiet agent that is alive was given up after %v", took)
	}
}

// An answer that is longer than a client takes is an error, and is not held.
func TestAnswerIsBounded(t *testing.T) {
	l, err := net.Listen("unix", filepath.Join(t.TempDir(), "socket"))
	if err != nil {
		t.Fatal(err)
	}
	var sent atomic.Int64
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/proto")
		for b := make([]byte, 1<<20); r.Context().Err() == nil && sent.Load() < 64<<20; {
			n, err := w.Write(b)
			if sent.Add(int64(n)); err != nil {
				return
			}
		}
	})}
	go server.Serve(l)
	defer server.Close()
	_, err = Dial(l.Addr().String()).Status(t.Context(), &batonv1.StatusRequest{})
	if connect.CodeOf(err) != connect.CodeResourceExhausted {
		t.Errorf("%v after %d bytes", err, sent.Load())
	}
}
