package app

import (
	"errors"
	"io/fs"
	"regexp"
	"strings"

	"github.com/alecthomas/kong"
)

// usageWords puts what the parser of the command line complains of into plain words.
var usageWords = []struct {
	seen  *regexp.Regexp
	plain string
}{
	{regexp.MustCompile(`^(--[\w-]+|\[?<.*>\]?): expected .* but got "EOL" .*$`), `$1 needs a value`},
	{regexp.MustCompile(`^(--[\w-]+|\[?<.*>\]?): expected .* but got "(-.*)" \(.* flag\).*$`), `$1: "$2" looks like a flag; if it is the value: $1="$2"`},
	{regexp.MustCompile(`^(--[\w-]+|\[?<.*>\]?): expected duration but got (".*?").*$`), `$1: $2 is no length of time, such as 30s or 5m`},
	{regexp.MustCompile(`^(--[\w-]+|\[?<.*>\]?): expected a valid .* (?:u?int) but got (".*?")$`), `$1: $2 is no whole number`},
	{regexp.MustCompile(`^(--[\w-]+|<.*>) must be one of (".*") but got (".*")$`), `$1: $3 is none of $2`},
	{regexp.MustCompile(`^(--[\w-]+): missing value.*$`), `$1 needs a value`},
	{regexp.MustCompile(`^missing flags: (.*)$`), `$1 is missing`},
	{regexp.MustCompile(`^expected "(<.*>)"$`), `$1 is missing`},
}

// usage says what is wrong with a command line, and names the help that fits.
func usage(err error) error {
	text := err.Error()
	for _, w := range usageWords {
		if w.seen.MatchString(text) {
			text = w.seen.ReplaceAllString(text, w.plain)
			break
		}
	}
	hint := "baton --help lists the commands"
	var wrong *kong.ParseError
	if errors.As(err, &wrong) {
		if c := wrong.Context.Selected(); c != nil {
			hint = command(c) + " --help"
		} else if p := wrong.Context.Path; len(p) > 1 && p[len(p)-1].Command != nil {
			hint = command(p[len(p)-1].Command) + " --help"
		}
	}
	return fail(exitUsage, hint, "%s", text)
}

// command names a command with those that it stands below.
func command(n *kong.Node) string {
	if n.Parent == nil {
		return n.Name
	}
	return command(n.Parent) + " " + n.Name
}

// cause is what the system says of a file, without the call and the path, which the user knows.
func cause(err error) string {
	var path *fs.PathError
	if errors.As(err, &path) {
		return path.Err.Error()
	}
	return strings.TrimSpace(err.Error())
}
