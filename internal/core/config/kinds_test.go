package config

import (
	"fmt"
	"net/netip"
	"time"

	"baton/internal/core/cluster"
)

// probeSpecs are the fields of a probe, as the process kind has them.
var probeSpecs = []cluster.FieldSpec{
	{Name: "http", Type: cluster.FieldString, Doc: "A URL that answers with 2xx."},
	{Name: "tcp", Type: cluster.FieldString, Doc: "HOST:PORT that accepts a connection."},
	{Name: "command", Type: cluster.FieldList, Doc: "A command that exits with 0."},
	{Name: "interval", Type: cluster.FieldDuration, Doc: "Time between probes.", Default: time.Second},
	{Name: "timeout", Type: cluster.FieldDuration, Doc: "Time that a probe may take.", Default: time.Second},
	{Name: "failures", Type: cluster.FieldInt, Doc: "Failures in a row that count.", Default: int64(3)},
}

// testKinds stand in for the kinds of the io packages: an address, a process, and something whose
// effects no gate reaches.
func testKinds() []cluster.KindSpec {
	return []cluster.KindSpec{
		{
			Name: "vip", Doc: "An address that moves.", Main: "address", Front: true, Effects: cluster.EffectsAddress,
			Depths: []cluster.Depth{cluster.Cold}, StartTimeout: 5 * time.Second, StopTimeout: 5 * time.Second,
			Fields: []cluster.FieldSpec{
				{Name: "address", Type: cluster.FieldPrefix, Required: true, Doc: "The address with its prefix length."},
				{Name: "interface", Type: cluster.FieldString, ByNode: true, Doc: "The interface. Default: the one with the network."},
				{Name: "announce", Type: cluster.FieldBool, Default: true, Doc: "Announce by gratuitous ARP."},
			},
			Guards: func(fields map[string]any) ([]string, []cluster.Port, error) {
				p := fields["address"].(netip.Prefix)
				if p.Addr().IsLoopback() {
					return nil, nil, fmt.Errorf("%s is a loopback address", p)
				}
				return []string{p.Addr().String()}, nil, nil
			},
		},
		{
			Name: "process", Doc: "A program.", Main: "command", Effects: cluster.EffectsOutgoing,
			Depths: []cluster.Depth{cluster.Hot, cluster.Cold}, StartTimeout: time.Minute, StopTimeout: 10 * time.Second,
			Fields: []cluster.FieldSpec{
				{Name: "command", Type: cluster.FieldList, Required: true, Doc: "The program and its arguments."},
				{Name: "user", Type: cluster.FieldString, Required: true, Doc: "Who runs it: the agent is root."},
				{Name: "environment", Type: cluster.FieldEnv, Doc: "Its environment."},
				{Name: "directory", Type: cluster.FieldString, Doc: "Its working directory."},
				{Name: "ports", Type: cluster.FieldPorts, Live: true, Doc: "Ports that the gate guards."},
				{Name: "main_port", Type: cluster.FieldPort, Doc: "One port."},
				{Name: "stop_signal", Type: cluster.FieldString, Live: true, Choices: []string{"SIGTERM", "SIGINT", "SIGQUIT"}, Default: "SIGTERM", Doc: "How it is asked to end."},
				{Name: "stop_timeout", Type: cluster.FieldDuration, Live: true, Default: 10 * time.Second, Doc: "How long it may take to end."},
				{Name: "ready", Type: cluster.FieldMap, Live: true, Fields: probeSpecs, Doc: "When it is ready."},
				{Name: "healthy", Type: cluster.FieldMap, Live: true, Fields: probeSpecs, Doc: "Whether it is healthy."},
			},
			Guards: func(fields map[string]any) ([]string, []cluster.Port, error) {
				ports, _ := fields["ports"].([]cluster.Port)
				return nil, ports, nil
			},
		},
		{
			Name: "share", Doc: "A shared disk.", Main: "device",
			Fields: []cluster.FieldSpec{{Name: "device", Type: cluster.FieldString, Required: true, Doc: "The device."}},
		},
	}
}
