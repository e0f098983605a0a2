package authority

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

var errEarly = errors.New("early")

// TestRunAll: it ends when both parts have ended, and a part that stops by
// itself ends the other and is an error, however it stops.
func TestRunAll(t *testing.T) {
	for _, tt := range []struct {
		name string
		run  func(context.Context) error
		is   error
		says string
	}{
		{"runs until the end", untilEnd, context.Canceled, "context canceled"},
		{"returns", func(context.Context) error { return nil }, nil, "authority: the first has stopped"},
		{"fails", func(context.Context) error { return errEarly }, errEarly, "authority: the first has stopped: early"},
		{"panics", func(context.Context) error { panic("secret") }, nil, "authority: the first has panicked"},
		{"ends its goroutine", func(context.Context) error { runtime.Goexit(); return nil }, nil, "authority: the first has panicked"},
		{"panics at the end", func(ctx context.Context) error { <-ctx.Done(); panic("secret") }, nil, "authority: the first has panicked"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
				defer cancel()
				time.AfterFunc(time.Minute, cancel)
				var ended atomic.Bool
				second := func(ctx context.Context) error {
					<-ctx.Done()
					time.Sleep(5 * time.Second) // it writes what is owed
					ended.Store(true)
					return ctx.Err()
				}
				var log bytes.Buffer
				logger := slog.New(slog.NewTextHandler(&log, nil))
				err := runAll(ctx, logger, part{"the first", tt.run}, part{"the second", second})
				require.True(t, ended.Load())
				require.EqualError(t, err, tt.says)
				if tt.is != nil {
					require.ErrorIs(t, err, tt.is)
				}
				require.NotContains(t, err.Error(), "secret")
				require.Equal(t, tt.is != context.Canceled, strings.Contains(log.String(), "has stopped before its context ended"))
				require.NotContains(t, log.String(), "secret")
			})
		})
	}
}

func untilEnd(ctx context.Context) error {
	<-ctx.Done()
	return ctx.Err()
}
