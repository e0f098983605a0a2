package redisstore_test

import (
	"os"
	"strings"
	"testing"
	"time"

	"github.com/sessiontoken/sessiontoken/faults"
	"github.com/sessiontoken/sessiontoken/faults/servers"
)

func TestHowSoonLive(t *testing.T) {
	beside(t)
	each(t, func(t *testing.T, place string) {
		n := 5_000
		if strings.HasPrefix(place, "cluster") {
			n = 1_000
		}
		faults.HowSoonLive(t, place, time.Second, n)
	})
}

func TestLiveFaults(t *testing.T) {
	beside(t)
	server, err := servers.StartRedis(servers.Durable...)
	installed(t, err)
	t.Cleanup(server.Stop)
	proxy := must(servers.StartProxy(server.Addr))
	t.Cleanup(proxy.Close)
	faults.LiveFaults(t, "one live "+server.Addr, "one live "+proxy.Addr, append(faults.Network(proxy), faults.Briefly(proxy), faults.Killed(server), faults.Frozen(server))...)
}

// TestLiveFaultsCluster: all ways to three masters fail. The first fault is
// for all runs, the others for those in full size.
func TestLiveFaultsCluster(t *testing.T) {
	beside(t)
	_, addrs := startCluster(t, 3, 0)
	var through []string
	var proxies []*servers.Proxy
	for _, addr := range addrs {
		proxy := must(servers.StartProxy(addr))
		t.Cleanup(proxy.Close)
		proxies, through = append(proxies, proxy), append(through, addr+"="+proxy.Addr)
	}
	network := faults.Network(proxies...)
	if !inFull() {
		network = network[:1]
	}
	faults.LiveFaults(t, "cluster live "+strings.Join(addrs, ","), "cluster live "+strings.Join(through, ","), network...)
}

// beside runs a test beside the others of this file, which wait more than they
// work, but in full size.
func beside(t *testing.T) {
	if !inFull() {
		t.Parallel()
	}
}

func inFull() bool { return os.Getenv("SESSIONTOKEN_FULL") == "1" }
