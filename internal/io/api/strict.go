package api

import (
	"bytes"
	"errors"
	"io"
	"net/http"
	"regexp"
	"strings"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/dynamicpb"

	"baton/internal/io/bounded"
)

// strictMost is how much of a request in JSON is looked at; no call takes more.
const strictMost = maxText

// strict refuses requests in JSON that are not what the call takes, in plain words. A field that is not known is
// an error: a typing error in dryRun must not move a group.
func strict(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !strings.HasPrefix(r.Header.Get("Content-Type"), "application/json") || r.Header.Get("Content-Encoding") != "" {
			next.ServeHTTP(w, r)
			return
		}
		input := inputOf(r.URL.Path)
		if r.Method != http.MethodPost || input == nil {
			next.ServeHTTP(w, r)
			return
		}
		body, err := bounded.ReadAll(r.Body, strictMost)
		var why *refusal
		switch {
		case errors.Is(err, bounded.ErrLong):
			why = &refusal{connect.CodeResourceExhausted, "the request is larger than 2 MiB", "send less at once"}
		case err != nil:
			why = &refusal{connect.CodeInvalidArgument, "the request was cut short", "send it again"}
		default:
			why = misread(body, input)
		}
		if why != nil {
			refuse(w, r, why)
			return
		}
		r.Body = io.NopCloser(bytes.NewReader(body))
		next.ServeHTTP(w, r)
	})
}

// inputOf returns what the call at a path takes, or nil.
func inputOf(path string) protoreflect.MessageDescriptor {
	name := strings.ReplaceAll(strings.TrimPrefix(path, "/"), "/", ".")
	d, err := protoregistry.GlobalFiles.FindDescriptorByName(protoreflect.FullName(name))
	if m, ok := d.(protoreflect.MethodDescriptor); err == nil && ok && !m.IsStreamingServer() {
		return m.Input()
	}
	return nil
}

// misreading takes package protojson's complaint apart: where, and what.
var misreading = regexp.MustCompile(`(?:syntax error )?\(line (\d+:\d+)\): (.*)$`)

// misread tells why a text is not the message asked for; nil: it is.
func misread(text []byte, input protoreflect.MessageDescriptor) *refusal {
	err := protojson.Unmarshal(text, dynamicpb.NewMessage(input))
	if err == nil {
		return nil
	}
	what := "it ends too soon, or is no JSON"
	if m := misreading.FindStringSubmatch(err.Error()); m != nil && !errors.Is(err, io.ErrUnexpectedEOF) {
		what = "line " + m[1] + ": " + m[2]
	}
	var fields []string
	for i := range input.Fields().Len() {
		fields = append(fields, input.Fields().Get(i).JSONName())
	}
	takes := "it takes no field"
	if len(fields) > 0 {
		takes = "its fields are " + strings.Join(fields, ", ")
	}
	return &refusal{connect.CodeInvalidArgument, "this is no " + string(input.Name()) + ": " + what, takes}
}
