package app

// devCmd is `baton dev`.
type devCmd struct {
	File string `arg:"" optional:"" help:"A cluster file to try; default: a small web service."`
}

// Run runs the cluster until it is told to stop.
func (c *devCmd) Run(k *console) error { return fail(exitFailed, "", "dev is being built") }
