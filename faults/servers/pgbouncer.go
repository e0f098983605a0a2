//go:build unix

package servers

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
)

// StartPgBouncer starts a pooler before a PostgreSQL, which gives each
// transaction of its many clients one of four connections. It passes on no
// search_path.
func StartPgBouncer(postgres *Server) (*Server, error) {
	bin, err := find("pgbouncer", "/usr/sbin/pgbouncer")
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "sessiontoken-pgbouncer-")
	if err != nil {
		return nil, err
	}
	var as *syscall.SysProcAttr
	if os.Geteuid() == 0 { // which it refuses to be
		if as, err = postgresUser(dir); err != nil {
			return nil, err
		}
	}
	port, err := freePort()
	if err != nil {
		return nil, err
	}
	_, behind := Split(postgres.Addr)
	config, users := filepath.Join(dir, "pgbouncer.ini"), filepath.Join(dir, "users.txt")
	for name, text := range map[string]string{
		config: fmt.Sprintf("[databases]\n* = host=127.0.0.1 port=%s\n[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = %s\nunix_socket_dir =\nauth_type = trust\nauth_file = %s\npool_mode = transaction\ndefault_pool_size = 4\nmax_client_conn = 500\n", behind, port, users),
		users:  "\"bench\" \"\"\n",
	} {
		if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
			return nil, err
		}
	}
	s := &Server{Addr: net.JoinHostPort("127.0.0.1", port), dir: dir, as: as, command: func() *exec.Cmd { return exec.Command(bin, config) }, ready: postgresReady}
	return s, s.Start()
}
