// Package lab is the real world in a box: hosts, networks and faults on one machine, from kernel
// namespaces. The integration tests, the benchmark and `baton dev` run the built binary in it.
//
// A [Host] is a set of network, mount, PID, UTS, IPC and cgroup namespaces and a cgroup, with its own
// /proc, /sys, /run, hostname, boot id and MAC addresses, and its own /var/lib/baton and /etc/baton on
// disk; all other files are the machine's. The networks are bridges in a network namespace of their own
// (the switch), so that the machine's own network is never touched. Faults of cables and switches are
// made in the switch, where the host can't undo them.
//
//	func TestMain(m *testing.M) {
//		lab.MaybeInit() // first: hosts and probes are this same program, run again
//		os.Exit(m.Run())
//	}
//
//	l, err := lab.New("failover", lab.Options{Networks: []string{"lan", "cross"}})
//	defer l.Close()
//	alpha, err := l.AddHost(lab.HostConfig{Name: "alpha", Addresses: map[string][]netip.Prefix{
//		"lan": {netip.MustParsePrefix("10.0.0.11/24")}}})
//	agent, err := alpha.Supervise(lab.Program{Args: []string{"/usr/bin/baton", "agent"}})
//	client, err := l.AddHost(...)
//	probe, err := client.Probe(lab.ProbeConfig{Target: netip.MustParseAddrPort("10.0.0.50:7000")})
//	cut := lab.Now()
//	err = alpha.PowerOff()         // link and all processes at once
//	err = probe.Await(10*time.Second, func(r lab.Record) bool { return r.AnsweredSince(cut, "beta") })
//	record := probe.Stop()         // record.Outage(), record.Overlap(): who answered when
//
// With [HostConfig].Systemd a host has a root of its own and systemd as PID 1.
//
// Whatever happens to the program that made it, nothing of a lab goes on running: each host's PID 1
// ends with the pipe that the program holds, or is killed with the program. Directories and cgroups that a killed
// program leaves are removed by [Sweep], which [New] calls.
//
// What it is not: all hosts share one kernel, so one kernel's clocks, one page cache (a write that was
// never synced survives PowerOff here, and would not survive a real one), and two cores' stalls hit
// several hosts at once. Directories that hosts have for themselves (/etc/baton, /var/lib/baton,
// [HostConfig].Disk) are made on the machine where they are missing, as places to mount on, and left
// there, empty.
package lab
