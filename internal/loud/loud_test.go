package loud_test

import (
	"bytes"
	"context"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sessiontoken/sessiontoken/internal/clock"
	"github.com/sessiontoken/sessiontoken/internal/loud"
)

// text returns a logger of lines without their time.
func text(b *bytes.Buffer) *slog.Logger {
	return slog.New(slog.NewTextHandler(b, &slog.HandlerOptions{ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
		if a.Key == slog.TimeKey {
			return slog.Attr{}
		}
		return a
	}}))
}

func TestOneLineAReasonAndMinute(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var b bytes.Buffer
		l := loud.New(text(&b))
		for range 600 { // 10 minutes
			l.Warn("store", "the store does not answer", "age", 7)
			l.Warn("clock", "the clocks differ")
			time.Sleep(time.Second)
		}
		lines := strings.Split(strings.TrimSpace(b.String()), "\n")
		require.Len(t, lines, 20)
		require.Equal(t, `level=WARN msg="the store does not answer" reason=store times=1 age=7`, lines[0])
		require.Equal(t, `level=WARN msg="the clocks differ" reason=clock times=1`, lines[1])
		require.Equal(t, `level=WARN msg="the store does not answer" reason=store times=60 age=7`, lines[2])
		require.Equal(t, map[string]uint64{"store": 600, "clock": 600}, l.Counts())
	})
}

func TestALineComesAtOnceAfterAQuietMinute(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var b bytes.Buffer
		l := loud.New(text(&b))
		l.Warn("store", "down")
		l.Warn("store", "down")
		time.Sleep(time.Minute - 1)
		l.Warn("store", "down")
		require.Equal(t, 1, strings.Count(b.String(), "\n"))
		time.Sleep(time.Nanosecond)
		l.Warn("store", "down")
		require.Equal(t, 2, strings.Count(b.String(), "\n"))
		require.Contains(t, b.String(), "times=3")
	})
}

// A machine that was suspended for a minute is told again, and one whose clock
// was set back is not silent for that long.
func TestTheMinuteGoesByTheClockThatSaysMore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var b bytes.Buffer
		machine := new(clock.Clock)
		var l *loud.Log
		clock.As(machine, func() { l = loud.New(text(&b)) })
		l.Warn("store", "down")
		machine.SetAhead(time.Hour)
		l.Warn("store", "down")
		require.Equal(t, 2, strings.Count(b.String(), "\n"))
		machine.SetAhead(-time.Hour)
		time.Sleep(time.Minute)
		l.Warn("store", "down")
		require.Equal(t, 3, strings.Count(b.String(), "\n"))
	})
}

func TestNilLoggerIsTheDefaultOfThatMoment(t *testing.T) {
	l := loud.New(nil)
	before := slog.Default()
	defer slog.SetDefault(before)
	var b bytes.Buffer
	slog.SetDefault(text(&b))
	l.Warn("store", "down")
	require.Contains(t, b.String(), "reason=store")
	require.Equal(t, map[string]uint64{"store": 1}, l.Counts())
}

func TestCountsAreTheCallers(t *testing.T) {
	l := loud.New(slog.New(slog.DiscardHandler))
	require.Empty(t, l.Counts())
	require.NotNil(t, l.Counts())
	l.Warn("store", "down")
	l.Counts()["store"] = 7
	require.Equal(t, map[string]uint64{"store": 1}, l.Counts())
}

// hung is a handler that does not return until it is released.
type hung struct {
	slog.Handler
	release chan struct{}
}

func (h hung) Handle(context.Context, slog.Record) error { <-h.release; return nil }

func TestALoggerThatHangsHoldsUpOneCall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := hung{slog.NewTextHandler(new(bytes.Buffer), nil), make(chan struct{})}
		l := loud.New(slog.New(h))
		go l.Warn("store", "down")
		synctest.Wait()
		for range 100 {
			l.Warn("store", "down")
		}
		require.Equal(t, map[string]uint64{"store": 101}, l.Counts())
		close(h.release)
	})
}

func TestManyAtOnce(t *testing.T) {
	var b bytes.Buffer
	l := loud.New(text(&b))
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 1000 {
				l.Warn("store", "down")
				l.Counts()
			}
		})
	}
	wg.Wait()
	require.Equal(t, map[string]uint64{"store": 8000}, l.Counts())
	require.Equal(t, 1, strings.Count(b.String(), "\n"))
}
