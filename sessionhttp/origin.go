package sessionhttp

import (
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
)

// checkOrigin returns ErrCrossOrigin for a request from another origin that is
// not safe (RFC 9110 section 9.2.1) or that asks to switch protocols.
func (s *Sessions[T]) checkOrigin(r *http.Request) error {
	if isSafe(r.Method) && !isUpgrade(r) {
		return nil
	}
	return s.compareOrigin(r)
}

// checkOriginAlways is checkOrigin for a handler that changes something with
// every method. A browser before 2023 sends no header from which the server
// knows that a GET comes from a link on another site. Such a request is
// refused, unless its credential is one that no link sends.
func (s *Sessions[T]) checkOriginAlways(r *http.Request) error {
	if isSafe(r.Method) && r.Header.Get("Sec-Fetch-Site") == "" && r.Header.Get("Origin") == "" {
		if _, ok, _ := bearer(r.Header); !ok {
			return ErrCrossOrigin
		}
	}
	return s.compareOrigin(r)
}

func isSafe(method string) bool {
	return method == http.MethodGet || method == http.MethodHead || method == http.MethodOptions
}

func (s *Sessions[T]) compareOrigin(r *http.Request) error {
	if r.Host == "" && r.Header.Get("Origin") != "" {
		return ErrCrossOrigin // HTTP/1.0: there is nothing to compare the origin with
	}
	changing := *r
	changing.Method = http.MethodPost
	if s.origins.Check(&changing) != nil {
		return ErrCrossOrigin
	}
	return nil
}

// isUpgrade reports whether a request asks to switch protocols (RFC 9110
// section 7.8). Though it is a GET, it opens a connection over which anything
// can be changed. Over HTTP/2 such a request is a CONNECT (RFC 8441), which is
// not a safe method.
func isUpgrade(r *http.Request) bool {
	if len(r.Header["Upgrade"]) > 0 {
		return true
	}
	for _, line := range r.Header["Connection"] {
		for token := range strings.SplitSeq(line, ",") {
			if strings.EqualFold(strings.TrimSpace(token), "upgrade") {
				return true
			}
		}
	}
	return false
}

// isTopLevel reports whether a request opens a page in a browser's window, by a
// link or a redirect.
func isTopLevel(r *http.Request) bool {
	mode, dest := r.Header.Get("Sec-Fetch-Mode"), r.Header.Get("Sec-Fetch-Dest")
	return r.Method == http.MethodGet && mode == "navigate" && dest == "document" && !isUpgrade(r)
}

// isSecure reports whether a token may be handed out in answer to r.
func (s *Sessions[T]) isSecure(r *http.Request) bool {
	return r.TLS != nil || s.cfg.TLSInFront || isLocal(r)
}

// isLocal reports whether the peer, Host and Origin, if there is one, are all
// this machine. It also returns true for a native client that sends a loopback
// Host through a proxy on this machine.
func isLocal(r *http.Request) bool {
	peer, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil || !peer.Addr().Unmap().IsLoopback() || !isLoopback(r.Host) {
		return false
	}
	for _, origin := range r.Header["Origin"] {
		u, err := url.Parse(origin)
		if err != nil || !isLoopback(u.Host) {
			return false
		}
	}
	return true
}

// isLoopback reports whether a host, with or without a port, always means the
// machine that asks: localhost and names below it (RFC 6761 section 6.3),
// 127.0.0.0/8 and ::1.
func isLoopback(host string) bool {
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	if ip, err := netip.ParseAddr(strings.Trim(host, "[]")); err == nil {
		return ip.Unmap().IsLoopback()
	}
	host = strings.ToLower(host)
	return host == "localhost" || strings.HasSuffix(host, ".localhost")
}
