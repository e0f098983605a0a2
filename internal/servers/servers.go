//go:build unix

// Package servers starts a real Redis and a real PostgreSQL on loopback, in
// temporary folders, for the tests and benchmarks of other modules of this
// repository. Nothing that ships imports it.
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

// Redis starts redis-server and returns its address. Without options it keeps
// nothing on disk.
func Redis(options ...string) (addr string, stop func(), err error) {
	bin, err := find("redis-server", "/usr/bin/redis-server")
	if err != nil {
		return "", nil, err
	}
	dir, err := os.MkdirTemp("", "bench-redis-")
	if err != nil {
		return "", nil, err
	}
	port, err := freePort()
	if err != nil {
		return "", nil, err
	}
	cmd := exec.Command(bin, append([]string{"--port", port, "--bind", "127.0.0.1", "--dir", dir, "--save", "", "--appendonly", "no"}, options...)...)
	addr = net.JoinHostPort("127.0.0.1", port)
	stop, err = start(cmd, dir, addr)
	return addr, stop, err
}

// Postgres starts a new PostgreSQL cluster with its default settings and
// returns a connection string. As root it runs as the user postgres.
func Postgres() (dsn string, stop func(), err error) {
	initdb, err := find("initdb", "/usr/lib/postgresql/*/bin/initdb")
	if err != nil {
		return "", nil, err
	}
	bin, err := find("postgres", "/usr/lib/postgresql/*/bin/postgres")
	if err != nil {
		return "", nil, err
	}
	dir, err := os.MkdirTemp("", "bench-postgres-")
	if err != nil {
		return "", nil, err
	}
	var as *syscall.SysProcAttr
	if os.Geteuid() == 0 { // which postgres refuses to be
		if as, err = postgresUser(dir); err != nil {
			return "", nil, err
		}
	}
	data := filepath.Join(dir, "data")
	init := exec.Command(initdb, "-D", data, "-U", "bench", "-A", "trust", "--no-sync")
	init.Dir, init.SysProcAttr = dir, as
	if out, err := init.CombinedOutput(); err != nil {
		return "", nil, fmt.Errorf("servers: initdb: %w: %s", err, out)
	}
	port, err := freePort()
	if err != nil {
		return "", nil, err
	}
	cmd := exec.Command(bin, "-D", data, "-p", port, "-c", "listen_addresses=127.0.0.1", "-c", "unix_socket_directories="+dir)
	cmd.Dir, cmd.SysProcAttr = dir, as
	stop, err = start(cmd, dir, net.JoinHostPort("127.0.0.1", port))
	return "postgres://bench@127.0.0.1:" + port + "/postgres?sslmode=disable", stop, err
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

// start runs the server until stop, and returns when it takes connections.
func start(cmd *exec.Cmd, dir, addr string) (stop func(), err error) {
	log, err := os.Create(filepath.Join(os.TempDir(), filepath.Base(dir)+".log"))
	if err != nil {
		return nil, err
	}
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("servers: %w", err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	stop = func() {
		_ = cmd.Process.Signal(syscall.SIGINT) // PostgreSQL's fast shutdown; Redis's too
		select {
		case <-ended:
		case <-time.After(10 * time.Second):
			_ = cmd.Process.Kill()
			<-ended
		}
		_ = log.Close()
		_ = os.Remove(log.Name())
		_ = os.RemoveAll(dir)
	}
	for deadline := time.Now().Add(30 * time.Second); time.Now().Before(deadline); {
		select {
		case err := <-ended:
			return nil, fmt.Errorf("servers: %s ended: %w; see %s", filepath.Base(cmd.Path), err, log.Name())
		case <-time.After(50 * time.Millisecond):
		}
		if c, err := net.DialTimeout("tcp", addr, time.Second); err == nil {
			_ = c.Close()
			return stop, nil
		}
	}
	stop()
	return nil, fmt.Errorf("servers: %s takes no connections", filepath.Base(cmd.Path))
}

// Split is the host and the port of an address.
func Split(addr string) (host, port string) {
	host, port, _ = net.SplitHostPort(addr)
	return host, port
}

// JoinRedisCluster makes one Cluster of servers that were started for it, with
// redis-cli.
func JoinRedisCluster(addrs []string) error {
	cli, err := find("redis-cli", "/usr/bin/redis-cli")
	if err != nil {
		return err
	}
	args := append([]string{"--cluster", "create"}, addrs...)
	if out, err := exec.Command(cli, append(args, "--cluster-yes")...).CombinedOutput(); err != nil {
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
