// Package config reads the cluster file: from its text to a validated cluster.Spec, and from the one
// timing knob, takeover, to every timer of the protocol. It is strict, since a cluster file that is
// half understood fails on the day it is needed: what it does not know, or does not have in this
// version, is an error with a place in the file and a hint, and nothing configured is silently ignored.
//
// The package does no I/O; the resource kinds come to it as data (cluster.KindSpec).
package config
