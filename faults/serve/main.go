//go:build unix

// Command serve starts a server on a free port, runs a program with its address
// or connection string as the last argument, and stops the server.
//
//	go -C faults run ./serve redis|postgres program [argument ...]
//
// The Redis keeps on disk what it acknowledges. Where the server is not installed,
// serve prints NOT RUN, and fails if CI is set.
package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"

	"github.com/sessiontoken/sessiontoken/faults/servers"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "serve:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	if len(args) < 2 {
		return errors.New("usage: serve redis|postgres program [argument ...]")
	}
	start := map[string]func() (string, func(), error){
		"redis":    func() (string, func(), error) { return servers.Redis(servers.Durable...) },
		"postgres": servers.Postgres,
	}[args[0]]
	if start == nil {
		return fmt.Errorf("no server is called %q", args[0])
	}
	at, stop, err := start()
	if errors.Is(err, servers.ErrMissing) && os.Getenv("CI") == "" {
		fmt.Println("NOT RUN:", err)
		return nil
	}
	if err != nil {
		return err
	}
	defer stop()
	program := exec.Command(args[1], append(args[2:], at)...)
	program.Stdout, program.Stderr = os.Stdout, os.Stderr
	return program.Run()
}
