package app

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"

	"baton/internal/io/bounded"
)

// devService is the service of a cluster on loopback: it listens on its node's own address, and answers
// only while its node serves. BATON_NODE, BATON_STATE_FILE, BATON_DEV
// and BATON_DEV_NET stand in its environment.
func devService(ctx context.Context) error {
	node := os.Getenv("BATON_NODE")
	if loopbackNodes[node] == 0 {
		return fmt.Errorf("BATON_NODE is %q: no node of the demo", node)
	}
	number, err := strconv.ParseUint(os.Getenv("BATON_DEV_NET"), 10, 8)
	if err != nil {
		return fmt.Errorf("BATON_DEV_NET names no network of the demo: %w", err)
	}
	at := loopbackNet(number).service(node)
	packets, err := new(net.ListenConfig).ListenPacket(ctx, "udp4", at)
	if err != nil {
		return err
	}
	pages, err := new(net.ListenConfig).Listen(ctx, "tcp4", at)
	if err != nil {
		return errors.Join(err, packets.Close())
	}
	server := &http.Server{Handler: http.HandlerFunc(servePage), ReadHeaderTimeout: time.Second}
	failed := make(chan error, 3)
	go func() { failed <- answerPackets(packets) }()
	go func() { failed <- server.Serve(pages) }()
	// It outlives its agent, so it ends by itself where baton dev is killed and can't end it.
	demo, err := strconv.Atoi(os.Getenv("BATON_DEV"))
	if err != nil {
		return errors.Join(fmt.Errorf("BATON_DEV names no process: %w", err), packets.Close(), server.Close())
	}
	go func() { failed <- awaitProcess(demo, forever) }()
	select {
	case <-ctx.Done():
	case err = <-failed:
	}
	return errors.Join(err, packets.Close(), server.Close())
}

// servingEpoch reads the state file: the epoch, and whether this node serves.
func servingEpoch() (uint64, bool) {
	text, err := bounded.ReadFile(os.Getenv("BATON_STATE_FILE"), bounded.Small)
	if err != nil {
		return 0, false
	}
	word, rest, _ := strings.Cut(strings.TrimSpace(string(text)), " ")
	epoch, err := strconv.ParseUint(rest, 10, 64)
	return epoch, word == "serving" && err == nil
}

// answerPackets answers "NODE EPOCH REQUEST" until the socket is closed.
func answerPackets(socket net.PacketConn) error {
	buffer := make([]byte, 512)
	for {
		n, from, err := socket.ReadFrom(buffer)
		if errors.Is(err, net.ErrClosed) {
			return nil
		}
		if err != nil {
			continue // an ICMP error for an earlier answer
		}
		if epoch, serves := servingEpoch(); serves {
			// An answer that can't be sent is lost, as datagrams are.
			_, _ = socket.WriteTo(fmt.Appendf(nil, "%s %d %s", os.Getenv("BATON_NODE"), epoch, buffer[:n]), from)
		}
	}
}

func servePage(w http.ResponseWriter, _ *http.Request) {
	epoch, serves := servingEpoch()
	if !serves {
		http.Error(w, os.Getenv("BATON_NODE")+" stands by", http.StatusServiceUnavailable)
		return
	}
	fmt.Fprintf(w, "%s %d %d\n", os.Getenv("BATON_NODE"), epoch, os.Getpid())
}
