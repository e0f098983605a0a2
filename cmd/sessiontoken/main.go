// Command sessiontoken reads tokens, keys and revocations of package
// sessiontoken from a shell, and changes them.
//
// Each command has -h, and --json for machines. Tokens and secrets are read
// from files, standard input or the environment, and never from arguments, which
// other users of the machine can see.
//
// It exits with 0 if what was asked is done or holds; 1 if it does not hold,
// such as a token that is not verified or a doctor's finding; 2 if the command
// line is wrong; 3 if it could not be done. With 3, the message says what is
// done and what is not.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"sync"
	"syscall"
)

// The exit codes.
const (
	exitDone   = 0
	exitNot    = 1 // what was asked does not hold
	exitUsage  = 2
	exitFailed = 3
)

// errNot means that what was asked does not hold. The command has printed why.
var errNot = errors.New("it does not hold")

// usageError is an error of the command line.
type usageError struct{ text string }

func (e usageError) Error() string { return e.text }

// command is one command. Its name is one word or two, such as "keys rotate".
type command struct {
	name    string
	args    string // what follows the flags, for the usage
	summary string
	// setup declares the flags and returns what runs after they were parsed.
	setup func(fs *flag.FlagSet) func(ctx context.Context, c *call) error
}

// call is one call of a command.
type call struct {
	args   []string // what follows the flags
	json   bool     // --json was set
	stdin  io.Reader
	out    io.Writer
	err    io.Writer
	getenv func(string) string

	warnings warnings // printed if the command succeeds
}

// warnings holds what the store warns of. Goroutines of a command that has ended
// may still write to it.
type warnings struct {
	mu   sync.Mutex
	text []byte
}

func (w *warnings) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.text = append(w.text, p...)
	return len(p), nil
}

func (w *warnings) String() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return string(w.text)
}

// commands are all commands, in the order of the help text.
var commands = []command{
	inspectCommand,
	lintCommand,
	doctorCommand,
	keysStatus,
	keysRotate,
	keysRevoke,
	keysReseal,
	sessionsRevoke,
	sessionsRevokeSubject,
	sessionsRevokeGroup,
	sessionsRevokeAll,
	sessionsForget,
	sessionsChanged,
	devicesList,
	devicesRevoke,
	copyStore,
	serveCommand,
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	code := run(ctx, os.Args[1:], &call{stdin: os.Stdin, out: os.Stdout, err: os.Stderr, getenv: os.Getenv})
	stop()
	os.Exit(code)
}

// run runs the command that args name and returns the exit code.
func run(ctx context.Context, args []string, c *call) int {
	cmd, rest := find(args)
	if cmd == nil {
		help(c.err)
		if len(args) == 1 && (args[0] == "help" || args[0] == "-h" || args[0] == "--help") {
			return exitDone
		}
		return exitUsage
	}
	fs := flag.NewFlagSet("sessiontoken "+cmd.name, flag.ContinueOnError)
	fs.SetOutput(io.Discard) // its errors repeat arguments
	fs.BoolVar(&c.json, "json", false, "print one JSON object")
	do := cmd.setup(fs)
	switch err := fs.Parse(rest); {
	case errors.Is(err, flag.ErrHelp):
		usage(c.err, cmd, fs)
		return exitDone
	case err != nil:
		fmt.Fprintf(c.err, "sessiontoken %s: a flag is unknown or its value is wrong; -h shows the flags, and -- stands before arguments that begin with a dash\n", cmd.name)
		return exitUsage
	}
	c.args = fs.Args()
	for _, arg := range c.args {
		name, _, _ := strings.Cut(strings.TrimLeft(arg, "-"), "=")
		if strings.HasPrefix(arg, "-") && (fs.Lookup(name) != nil || name == "h" || name == "help") {
			fmt.Fprintf(c.err, "sessiontoken %s: a flag follows an argument; flags come first\n", cmd.name)
			return exitUsage
		}
	}
	err := do(ctx, c)
	var wrong usageError
	switch {
	case err == nil:
		fmt.Fprint(c.err, c.warnings.String())
		return exitDone
	case errors.Is(err, errNot):
		return exitNot
	}
	text := strings.Join(strings.Fields(err.Error()), " ") // one line
	fmt.Fprintf(c.err, "sessiontoken %s: %s\n", cmd.name, text)
	if errors.As(err, &wrong) {
		return exitUsage
	}
	return exitFailed
}

// find returns the command that args begin with, and the arguments after it.
func find(args []string) (*command, []string) {
	for i := range commands {
		words := strings.Fields(commands[i].name)
		if len(args) >= len(words) && strings.Join(args[:len(words)], " ") == commands[i].name {
			return &commands[i], args[len(words):]
		}
	}
	return nil, nil
}

func help(w io.Writer) {
	fmt.Fprint(w, "usage: sessiontoken command [flags] [arguments]\n\n")
	for _, cmd := range commands {
		fmt.Fprintf(w, "  %-24s %s\n", cmd.name, cmd.summary)
	}
	fmt.Fprint(w, "\n'sessiontoken command -h' shows the flags of a command.\n")
}

func usage(w io.Writer, cmd *command, fs *flag.FlagSet) {
	fmt.Fprintf(w, "usage: sessiontoken %s [flags] %s\n\n%s.\n\n", cmd.name, cmd.args, cmd.summary)
	fs.SetOutput(w)
	fs.PrintDefaults()
}
