package authority

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
)

// Run follows the store until ctx ends: it rotates the keys, learns what other
// replicas have revoked, and writes again what the store has not acknowledged.
// Start it in one goroutine. When ctx ends it goes on for up to 5 s, to write
// what is owed, and returns ctx.Err(): wait for it before the process ends.
//
// Without it, store and keys are read when a request asks for them: what other
// replicas have revoked is then known within 30 s, and what is owed is written
// while requests come.
//
// Failures of the store do not end it; [Authority.Ready] tells of them. Should
// one of its parts stop before ctx ends, Run ends the other, logs it and
// returns an error: then start the process anew.
//
// With Config.Host it returns an error at once: [Host.Run] does all of that.
func (a *Authority[T]) Run(ctx context.Context) error {
	if a.hosted {
		return errHosted
	}
	return runAll(ctx, a.logger, part{"the key ring", a.ring.Run}, part{"the list of revocations", a.revocations.Run})
}

// part is something that runs until its context ends.
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
	logger.Error("authority: Run has stopped by itself; this replica learns late of what others do: start the process anew", "error", err)
	return err
}
