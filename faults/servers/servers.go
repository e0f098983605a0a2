//go:build unix

// Package servers starts a real Redis and a real PostgreSQL on loopback, in
// temporary folders, for the tests and benchmarks of the modules of this
// repository that no release tags. Nothing that ships imports it.
package servers

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// ErrMissing means that the server is not installed.
var ErrMissing = errors.New("servers: not installed")

// Server is a server that runs until it is stopped or killed, and can be started
// again with what it had on disk.
type Server struct {
	Addr string // host:port

	dir     string
	as      *syscall.SysProcAttr // the user it runs as; nil is this one
	command func() *exec.Cmd
	ready   func(net.Conn) bool // nil: when it takes connections
	cmd     *exec.Cmd
	ended   chan struct{} // closed once it has
	log     *os.File
}

// Redis is [StartRedis] for those who need no more than the address.
func Redis(options ...string) (addr string, stop func(), err error) {
	s, err := StartRedis(options...)
	if err != nil {
		return "", nil, err
	}
	return s.Addr, s.Stop, nil
}

// Durable are the options of a Redis that keeps on disk what it acknowledges.
var Durable = []string{"--appendonly", "yes", "--appendfsync", "always"}

// StartRedis starts redis-server. Without options it keeps nothing on disk.
func StartRedis(options ...string) (*Server, error) {
	s, port, bin, err := newRedis()
	if err != nil {
		return nil, err
	}
	args := append([]string{"--port", port, "--bind", "127.0.0.1", "--dir", s.dir, "--save", "", "--appendonly", "no"}, options...)
	s.command = func() *exec.Cmd { return exec.Command(bin, args...) }
	return s, s.Start()
}

// newRedis is a server without a command.
func newRedis() (s *Server, port, bin string, err error) {
	if bin, err = find("redis-server", "/usr/bin/redis-server"); err != nil {
		return nil, "", "", err
	}
	dir, err := os.MkdirTemp("", "sessiontoken-redis-")
	if err != nil {
		return nil, "", "", err
	}
	if port, err = freePort(); err != nil {
		return nil, "", "", err
	}
	return &Server{Addr: net.JoinHostPort("127.0.0.1", port), dir: dir}, port, bin, nil
}

// Postgres is [StartPostgres] for those who need no more than a connection string.
func Postgres() (dsn string, stop func(), err error) {
	s, err := StartPostgres()
	if err != nil {
		return "", nil, err
	}
	return PostgresDSN(s.Addr), s.Stop, nil
}

// PostgresDSN is the connection string for a server of [StartPostgres], or for a
// proxy before it.
func PostgresDSN(addr string) string {
	return "postgres://bench@" + addr + "/postgres?sslmode=disable"
}

// StartPostgres starts a new PostgreSQL cluster with its default settings but for
// the options, such as "fsync=off". As root it runs as the user postgres.
func StartPostgres(options ...string) (*Server, error) {
	initdb, err := find("initdb", "/usr/lib/postgresql/*/bin/initdb")
	if err != nil {
		return nil, err
	}
	s, data, err := newPostgres(options...)
	if err != nil {
		return nil, err
	}
	if err := s.tool(initdb, "-D", data, "-U", "bench", "-A", "trust", "--no-sync"); err != nil {
		return nil, err
	}
	// One user needs a password.
	rules := filepath.Join(data, "pg_hba.conf")
	hba, err := os.ReadFile(rules)
	if err != nil {
		return nil, err
	}
	if err := os.WriteFile(rules, append([]byte("host all locked 127.0.0.1/32 scram-sha-256\n"), hba...), 0o600); err != nil {
		return nil, err
	}
	return s, s.Start()
}

// StartPostgresStandby starts a standby of a primary. It takes over when it is told
// to [Server.Promote].
func StartPostgresStandby(primary *Server) (*Server, error) {
	backup, err := find("pg_basebackup", "/usr/lib/postgresql/*/bin/pg_basebackup")
	if err != nil {
		return nil, err
	}
	s, data, err := newPostgres()
	if err != nil {
		return nil, err
	}
	host, port := Split(primary.Addr)
	if err := s.tool(backup, "-D", data, "-h", host, "-p", port, "-U", "bench", "-R", "--checkpoint=fast", "--no-sync"); err != nil {
		return nil, err
	}
	return s, s.Start()
}

// Promote makes a primary of a standby.
func (s *Server) Promote() error {
	ctl, err := find("pg_ctl", "/usr/lib/postgresql/*/bin/pg_ctl")
	if err != nil {
		return err
	}
	return s.tool(ctl, "promote", "-D", filepath.Join(s.dir, "data"), "-w")
}

// newPostgres is a server that has no data yet.
func newPostgres(options ...string) (s *Server, data string, err error) {
	bin, err := find("postgres", "/usr/lib/postgresql/*/bin/postgres")
	if err != nil {
		return nil, "", err
	}
	dir, err := os.MkdirTemp("", "sessiontoken-postgres-")
	if err != nil {
		return nil, "", err
	}
	var as *syscall.SysProcAttr
	if os.Geteuid() == 0 { // which postgres refuses to be
		if as, err = postgresUser(dir); err != nil {
			return nil, "", err
		}
	}
	port, err := freePort()
	if err != nil {
		return nil, "", err
	}
	data = filepath.Join(dir, "data")
	args := []string{"-D", data, "-p", port, "-c", "listen_addresses=127.0.0.1", "-c", "unix_socket_directories=" + dir}
	for _, o := range options {
		args = append(args, "-c", o)
	}
	return &Server{Addr: net.JoinHostPort("127.0.0.1", port), dir: dir, as: as, command: func() *exec.Cmd { return exec.Command(bin, args...) }, ready: postgresReady}, data, nil
}

// tool runs a program of the server's, as the user that it runs as.
func (s *Server) tool(name string, args ...string) error {
	cmd := exec.Command(name, args...)
	cmd.Dir, cmd.SysProcAttr = s.dir, s.as
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("servers: %s: %w: %s", filepath.Base(name), err, out)
	}
	return nil
}

// postgresReady reports whether PostgreSQL lets a user in: while it starts, it takes
// connections and answers them with an error.
func postgresReady(c net.Conn) bool {
	_ = c.SetDeadline(time.Now().Add(time.Second))
	const startup = "\x00\x03\x00\x00user\x00bench\x00database\x00postgres\x00\x00"
	if _, err := c.Write(append([]byte{0, 0, 0, byte(len(startup) + 4)}, startup...)); err != nil {
		return false
	}
	kind := make([]byte, 1)
	_, err := c.Read(kind)
	return err == nil && kind[0] == 'R' // AuthenticationOk
}

func postgresUser(dir string) (*syscall.SysProcAttr, error) {
	u, err := user.Lookup("postgres")
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrMissing, err)
	}
	uid, err := strconv.ParseUint(u.Uid, 10, 32)
	if err != nil {
		return nil, err
	}
	gid, err := strconv.ParseUint(u.Gid, 10, 32)
	if err != nil {
		return nil, err
	}
	if err := os.Chown(dir, int(uid), int(gid)); err != nil {
		return nil, err
	}
	return &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}}, nil
}

func find(name, elsewhere string) (string, error) {
	if path, err := exec.LookPath(name); err == nil {
		return path, nil
	}
	if paths, _ := filepath.Glob(elsewhere); len(paths) > 0 {
		return paths[len(paths)-1], nil
	}
	return "", fmt.Errorf("%w: %s", ErrMissing, name)
}

// freePort returns a port that was free a moment ago. A node of a Redis Cluster
// uses the one 10,000 above it too.
func freePort() (string, error) {
	for range 100 {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return "", err
		}
		at := l.Addr().(*net.TCPAddr)
		_ = l.Close()
		if at.Port < 55_000 {
			return strconv.Itoa(at.Port), nil
		}
	}
	return "", errors.New("servers: no free port below 55000")
}

// Start starts the server, again if it was killed, and returns when it takes
// connections.
func (s *Server) Start() (err error) {
	if s.log == nil {
		if s.log, err = os.Create(filepath.Join(os.TempDir(), filepath.Base(s.dir)+".log")); err != nil {
			return err
		}
	}
	s.cmd = s.command()
	s.cmd.Dir, s.cmd.SysProcAttr = s.dir, s.as
	s.cmd.Stdout, s.cmd.Stderr = s.log, s.log
	if err := s.cmd.Start(); err != nil {
		return fmt.Errorf("servers: %w", err)
	}
	cmd, ended := s.cmd, make(chan struct{})
	s.ended = ended
	go func() {
		_ = cmd.Wait()
		close(ended)
	}()
	for deadline := time.Now().Add(30 * time.Second); time.Now().Before(deadline); {
		select {
		case <-ended:
			return fmt.Errorf("servers: %s ended: %v; see %s", filepath.Base(cmd.Path), cmd.ProcessState, s.log.Name())
		case <-time.After(50 * time.Millisecond):
		}
		if c, err := net.DialTimeout("tcp", s.Addr, time.Second); err == nil {
			ready := s.ready == nil || s.ready(c)
			_ = c.Close()
			if ready {
				return nil
			}
		}
	}
	s.Stop()
	return fmt.Errorf("servers: %s takes no connections", filepath.Base(cmd.Path))
}

// Kill ends the server at once, as kill -9 does.
func (s *Server) Kill() {
	_ = s.cmd.Process.Kill()
	<-s.ended
}

// Ended reports whether the server has ended, by itself or because it was killed.
func (s *Server) Ended() bool {
	select {
	case <-s.ended:
		return true
	default:
		return false
	}
}

// Freeze stops the server's processes in the middle of what they do, and Thaw lets
// them go on.
func (s *Server) Freeze() error { return s.signal(syscall.SIGSTOP) }

// Thaw ends what Freeze began.
func (s *Server) Thaw() error { return s.signal(syscall.SIGCONT) }

func (s *Server) signal(sig syscall.Signal) error {
	pid := s.cmd.Process.Pid
	children, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%[1]d/children", pid))
	if errors.Is(err, os.ErrNotExist) { // not on Linux, or the server has ended
		children, _ = exec.Command("pgrep", "-P", strconv.Itoa(pid)).Output()
	} else if err != nil {
		return err
	}
	for _, field := range append(strings.Fields(string(children)), strconv.Itoa(pid)) {
		n, err := strconv.Atoi(field)
		if err != nil {
			return err
		}
		if err := syscall.Kill(n, sig); err != nil && err != syscall.ESRCH {
			return err
		}
	}
	return nil
}

// Stop ends the server and removes what it had on disk.
func (s *Server) Stop() {
	_ = s.signal(syscall.SIGCONT)
	_ = s.cmd.Process.Signal(syscall.SIGINT) // PostgreSQL's fast shutdown; Redis's too
	select {
	case <-s.ended:
	case <-time.After(10 * time.Second):
		s.Kill()
	}
	_ = s.log.Close()
	_ = os.Remove(s.log.Name())
	_ = os.RemoveAll(s.dir)
}

// Split is the host and the port of an address.
func Split(addr string) (host, port string) {
	host, port, _ = net.SplitHostPort(addr)
	return host, port
}

// StartRedisSentinel starts one that watches a master: it is down after 500 ms, and
// a replica takes over once quorum Sentinels say so.
func StartRedisSentinel(name, master string, quorum int) (*Server, error) {
	s, port, bin, err := newRedis()
	if err != nil {
		return nil, err
	}
	host, masterPort := Split(master)
	file := filepath.Join(s.dir, "sentinel.conf")
	rules := fmt.Sprintf("port %s\nbind 127.0.0.1\ndir %s\nsentinel monitor %s %s %s %d\nsentinel down-after-milliseconds %[3]s 500\nsentinel failover-timeout %[3]s 5000\n",
		port, s.dir, name, host, masterPort, quorum)
	if err := os.WriteFile(file, []byte(rules), 0o600); err != nil {
		return nil, err
	}
	s.command = func() *exec.Cmd { return exec.Command(bin, file, "--sentinel") }
	return s, s.Start()
}

// JoinRedisCluster makes one Cluster of servers that were started for it, with
// redis-cli: each master has that many replicas.
func JoinRedisCluster(addrs []string, replicas int) error {
	cli, err := find("redis-cli", "/usr/bin/redis-cli")
	if err != nil {
		return err
	}
	args := append([]string{"--cluster", "create"}, addrs...)
	if out, err := exec.Command(cli, append(args, "--cluster-replicas", strconv.Itoa(replicas), "--cluster-yes")...).CombinedOutput(); err != nil {
		return fmt.Errorf("servers: redis-cli: %w: %s", err, out)
	}
	// The nodes tell each other who has what.
	for deadline := time.Now().Add(30 * time.Second); time.Now().Before(deadline); time.Sleep(100 * time.Millisecond) {
		ready := 0
		for _, addr := range addrs {
			host, port := Split(addr)
			out, err := exec.Command(cli, "-h", host, "-p", port, "cluster", "info").Output()
			if err == nil && strings.Contains(string(out), "cluster_state:ok") {
				ready++
			}
		}
		if ready == len(addrs) {
			return nil
		}
	}
	return errors.New("servers: the cluster does not form")
}
