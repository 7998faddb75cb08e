package api

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"baton/api/v1/batonv1connect"
)

// Requests may take long: a switchover waits for programs to stop. But an agent that is alive says so: where a request
// has had no answer for silentAfter, and again each time that much has passed, a client asks for the agent's version,
// which waits for nothing, and gives up where that has no answer within silentAfter either. So no command waits longer
// than twice that for an agent that is frozen, or for a host that is gone.
const silentAfter = 5 * time.Second

// SilentError says that an agent listens, or did, and answers nothing.
type SilentError struct {
	For   time.Duration // so long at least
	Cause error         // what became of the last question
}

// Error implements error.
func (s *SilentError) Error() string {
	return fmt.Sprintf("an agent listens there, and has answered nothing for %v", s.For)
}

// Unwrap returns the cause.
func (s *SilentError) Unwrap() error { return s.Cause }

// vital gives requests up whose agent gives no sign of life.
type vital struct {
	next  http.RoundTripper
	base  string // of the agent
	after time.Duration
}

// RoundTrip implements http.RoundTripper.
func (v *vital) RoundTrip(r *http.Request) (*http.Response, error) {
	ctx, end := context.WithCancelCause(r.Context())
	go v.watch(ctx, end)
	answer, err := v.next.RoundTrip(r.WithContext(ctx))
	if err != nil {
		err = silent(ctx, err)
		end(nil)
		return nil, err
	}
	answer.Body = &vitalBody{answer.Body, ctx, end}
	return answer, nil
}

// watch asks for a sign of life until the request is over.
func (v *vital) watch(ctx context.Context, end context.CancelCauseFunc) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-time.After(v.after):
		}
		if err := v.ask(ctx); err != nil && ctx.Err() == nil {
			end(&SilentError{2 * v.after, err})
			return
		}
	}
}

// ask asks for the version. Any answer will do.
func (v *vital) ask(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, v.after)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, v.base+batonv1connect.BatonVersionProcedure, strings.NewReader("{}"))
	if err != nil {
		return err
	}
	r.Header.Set("Content-Type", "application/json")
	answer, err := v.next.RoundTrip(r)
	if err != nil {
		return err
	}
	return answer.Body.Close()
}

// silent returns why a request was given up, where it was.
func silent(ctx context.Context, err error) error {
	var s *SilentError
	if errors.As(context.Cause(ctx), &s) {
		return s
	}
	return err
}

// vitalBody is an answer whose end ends the watch.
type vitalBody struct {
	io.ReadCloser
	ctx context.Context
	end context.CancelCauseFunc
}

// Read implements io.Reader.
func (b *vitalBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if err != nil && err != io.EOF {
		err = silent(b.ctx, err)
	}
	return n, err
}

// Close implements io.Closer.
func (b *vitalBody) Close() error {
	b.end(nil)
	return b.ReadCloser.Close()
}
