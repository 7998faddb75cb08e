package app

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"time"
	"unicode/utf8"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
)

// palette paints words, or leaves them as they are.
type palette struct{ on bool }

// colour is the number of an ANSI rendition (ECMA-48, SGR).
type colour int

const (
	plainText colour = 0
	bold      colour = 1
	dim       colour = 2
	red       colour = 31
	green     colour = 32
	yellow    colour = 33
)

func (p palette) text(c colour, s string) string {
	if !p.on || c == plainText || s == "" {
		return s
	}
	return fmt.Sprintf("\x1b[%dm%s\x1b[0m", c, s)
}

// cell is one field of a table.
type cell struct {
	text   string
	colour colour
}

// table writes rows in columns as wide as their widest text. The first row is the heading.
func (p palette) table(w io.Writer, rows [][]cell) {
	var widths []int
	for _, row := range rows {
		for i, c := range row {
			if i == len(widths) {
				widths = append(widths, 0)
			}
			widths[i] = max(widths[i], utf8.RuneCountInString(c.text))
		}
	}
	for _, row := range rows {
		var b strings.Builder
		for i, c := range row {
			b.WriteString(p.text(c.colour, c.text))
			if i < len(row)-1 {
				b.WriteString(strings.Repeat(" ", widths[i]-utf8.RuneCountInString(c.text)+2))
			}
		}
		fmt.Fprintln(w, strings.TrimRight(b.String(), " "))
	}
}

func heading(names ...string) []cell {
	row := make([]cell, len(names))
	for i, n := range names {
		row[i] = cell{strings.ToUpper(n), bold}
	}
	return row
}

// short writes a duration as exactly as a reader needs it.
func short(d time.Duration) string {
	switch {
	case d < time.Second:
		return d.Round(time.Millisecond).String()
	case d < time.Minute:
		return d.Round(time.Second / 10).String()
	}
	return d.Round(time.Second).String()
}

// jsonOf returns a message's JSON form. Every field stands in it, also those that are empty, so that a
// script finds what it looks for.
func jsonOf(m proto.Message) ([]byte, error) {
	text, err := protojson.MarshalOptions{EmitDefaultValues: true}.Marshal(m)
	if err != nil {
		return nil, fmt.Errorf("write JSON: %w", err)
	}
	// Package protojson varies its spaces on purpose; people compare texts.
	var b bytes.Buffer
	err = json.Compact(&b, text)
	return b.Bytes(), err
}

// printJSON prints a message, or any other value, as JSON over several lines.
func (k *console) printJSON(v any) error {
	var text []byte
	var err error
	if m, ok := v.(proto.Message); ok {
		text, err = jsonOf(m)
	} else {
		text, err = json.Marshal(v)
	}
	if err != nil {
		return err
	}
	var b bytes.Buffer
	if err := json.Indent(&b, text, "", "  "); err != nil {
		return err
	}
	b.WriteByte('\n')
	_, err = k.out.Write(b.Bytes())
	return err
}
