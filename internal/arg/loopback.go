package arg

import (
	"net"
	"net/netip"
	"strings"
)

// IsLoopback reports whether a host, without a port, is always this machine:
// localhost and names below it (RFC 6761 section 6.3), 127.0.0.0/8 and ::1.
func IsLoopback(host string) bool {
	if ip, err := netip.ParseAddr(host); err == nil {
		return ip.Zone() == "" && ip.Unmap().IsLoopback()
	}
	host = strings.ToLower(host)
	return host == "localhost" || strings.HasSuffix(host, ".localhost")
}

// IsLocalPeer reports whether the peer of a request is on loopback, such as a
// proxy on the same machine or in the same pod. remoteAddr is the RemoteAddr of
// net/http.
func IsLocalPeer(remoteAddr string) bool {
	host, _, err := net.SplitHostPort(remoteAddr)
	if err != nil {
		return false
	}
	ip := net.ParseIP(host)
	return ip != nil && ip.IsLoopback()
}
