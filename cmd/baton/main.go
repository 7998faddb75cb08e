// Baton moves services between machines, and never lets two serve.
package main

import (
	"os"

	"baton/internal/app"
	"baton/internal/lab"
)

func main() {
	lab.MaybeInit() // the hosts of `baton dev` are this program, run again
	os.Exit(app.Main(os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
}
