package authority

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
)

// Run reads the store until ctx ends: it rotates the keys, reads what other
// replicas have revoked, and writes revocations that the store has not
// acknowledged yet. Start it in one goroutine. After ctx has ended, it writes
// owed revocations for at most 5 s, and returns ctx.Err(): wait for it before
// the process ends.
//
// Without Run, requests cause the readings of the store: a revocation at
// another replica is then known after 30 s at most, and owed revocations are
// written while requests come.
//
// A failure of the store does not end Run; [Authority.Ready] reports it. If one
// of its parts stops before ctx ends, Run ends the other, logs that and returns
// an error: restart the process.
//
// With Config.Host it returns an error at once: [Host.Run] replaces it.
func (a *Authority[T]) Run(ctx context.Context) error {
	if a.host != nil {
		return errHosted
	}
	a.running.Add(1)
	defer a.running.Add(-1)
	return runAll(ctx, a.logger, part{"the key ring", a.ring.Run}, part{"the list of revocations", a.revocations.Run})
}

// part is a function that runs until its context ends.
type part struct {
	name string
	run  func(context.Context) error
}

// runAll runs parts until ctx ends, or until one of them stops by itself, and
// waits for all of them.
func runAll(ctx context.Context, logger *slog.Logger, parts ...part) error {
	running, cancel := context.WithCancel(ctx)
	defer cancel()
	ended := make(chan error, len(parts))
	for _, p := range parts {
		go func() {
			err := fmt.Errorf("authority: %s has panicked", p.name)
			defer func() {
				_ = recover() // its value may hold what must not be logged
				ended <- err
			}()
			err = p.run(running)
			switch {
			case running.Err() != nil:
				err = nil
			case err == nil:
				err = fmt.Errorf("authority: %s has stopped", p.name)
			default:
				err = fmt.Errorf("authority: %s has stopped: %w", p.name, err)
			}
		}()
	}
	errs := make([]error, 0, len(parts)+1)
	for range parts {
		errs = append(errs, <-ended)
		cancel()
	}
	err := errors.Join(errs...)
	if err == nil {
		return ctx.Err()
	}
	if logger == nil {
		logger = slog.Default()
	}
	logger.Error("authority: Run has stopped before its context ended; this replica now reads the store only when requests come: restart the process", "error", err)
	return err
}
