//go:build unix

package servers

import (
	"net"
	"sync"
	"time"
)

// Proxy stands before a server and can be made to fail as a network does.
type Proxy struct {
	Addr string

	listener net.Listener
	server   string

	mu    sync.Mutex
	turn  *sync.Cond
	state proxyState
	slow  time.Duration
	conns map[net.Conn]bool
}

type proxyState int

const (
	passing proxyState = iota
	cut                // no connection
	hole               // connections that say nothing any more
	closed
)

// StartProxy starts a proxy before the server at an address.
func StartProxy(server string) (*Proxy, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	p := &Proxy{Addr: l.Addr().String(), listener: l, server: server, conns: map[net.Conn]bool{}}
	p.turn = sync.NewCond(&p.mu)
	go p.accept()
	return p, nil
}

func (p *Proxy) accept() {
	for {
		c, err := p.listener.Accept()
		if err != nil {
			return
		}
		go p.serve(c)
	}
}

func (p *Proxy) serve(c net.Conn) {
	defer c.Close()
	if !p.add(c) {
		return
	}
	s, err := net.Dial("tcp", p.server)
	if err != nil {
		return
	}
	defer s.Close()
	if !p.add(s) {
		return
	}
	var wg sync.WaitGroup
	wg.Go(func() { p.copy(s, c) })
	wg.Go(func() { p.copy(c, s) })
	wg.Wait()
}

func (p *Proxy) add(c net.Conn) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.state == cut || p.state == closed {
		return false
	}
	p.conns[c] = true
	return true
}

func (p *Proxy) copy(to, from net.Conn) {
	defer to.Close()
	defer from.Close()
	buf := make([]byte, 32<<10)
	for {
		n, err := from.Read(buf)
		p.mu.Lock()
		for p.state == hole {
			p.turn.Wait()
		}
		slow := p.slow
		p.mu.Unlock()
		time.Sleep(slow)
		if n > 0 {
			if _, err := to.Write(buf[:n]); err != nil {
				return
			}
		}
		if err != nil {
			return
		}
	}
}

func (p *Proxy) set(s proxyState) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.state, p.slow = s, 0
	if s == cut || s == closed {
		for c := range p.conns {
			_ = c.Close()
		}
		clear(p.conns)
	}
	p.turn.Broadcast()
}

// Cut ends all connections, and refuses new ones until Heal.
func (p *Proxy) Cut() { p.set(cut) }

// BlackHole stops forwarding: connections stay, and nothing comes through. What
// was sent meanwhile comes through after Heal.
func (p *Proxy) BlackHole() { p.set(hole) }

// Slow forwards, and takes its time: that long for what is sent at once, in each
// direction.
func (p *Proxy) Slow(d time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.slow = d
}

// Heal forwards again.
func (p *Proxy) Heal() { p.set(passing) }

// Close ends the proxy.
func (p *Proxy) Close() {
	p.set(closed)
	_ = p.listener.Close()
}
