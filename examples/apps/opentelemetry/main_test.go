package main

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/trace"
	"go.opentelemetry.io/otel/trace/noop"

	"github.com/sessiontoken/sessiontoken/revoke"
)

// recorder is a tracer that keeps what its spans are given.
type recorder struct {
	noop.Tracer
	mu    sync.Mutex
	spans []*span
}

type span struct {
	noop.Span
	of         *recorder
	name       string
	parent     trace.Span
	attributes map[string]string
	events     []string
}

func (r *recorder) Start(ctx context.Context, name string, options ...trace.SpanStartOption) (context.Context, trace.Span) {
	r.mu.Lock()
	s := &span{of: r, name: name, parent: trace.SpanFromContext(ctx), attributes: map[string]string{}}
	r.spans = append(r.spans, s)
	r.mu.Unlock()
	c := trace.NewSpanStartConfig(options...)
	s.SetAttributes(c.Attributes()...)
	return trace.ContextWithSpan(ctx, s), s
}

func (*span) IsRecording() bool { return true }

func (s *span) SetAttributes(all ...attribute.KeyValue) {
	s.of.mu.Lock()
	defer s.of.mu.Unlock()
	for _, a := range all {
		s.attributes[string(a.Key)] = a.Value.String()
	}
}

func (s *span) AddEvent(name string, options ...trace.EventOption) {
	s.of.mu.Lock()
	defer s.of.mu.Unlock()
	c := trace.NewEventConfig(options...)
	for _, a := range c.Attributes() {
		name += fmt.Sprintf(" %s=%s", a.Key, a.Value.String())
	}
	s.events = append(s.events, name)
}

// TestSpans: the span of a request has the session's names as hashes and the
// events of what it caused, a refused one its reason, a renewal a span of Load, and
// none of them a token or a name.
func TestSpans(t *testing.T) {
	var rec recorder
	site, handler, err := newSite(&rec)
	require.NoError(t, err)
	ask := func(method, path string, cookies ...*http.Cookie) (status int, last *span, set []*http.Cookie) {
		r := httptest.NewRequest(method, "http://localhost:8322"+path, nil)
		r.RemoteAddr = "127.0.0.1:1"
		for _, c := range cookies {
			r.AddCookie(c)
		}
		before := len(rec.spans)
		w := httptest.NewRecorder()
		handler.ServeHTTP(w, r)
		return w.Code, rec.spans[before], w.Result().Cookies()
	}
	status, s, cookies := ask("POST", "/sign-in")
	require.Equal(t, 200, status)
	require.Len(t, cookies, 1)
	c, err := site.Verifier().Verify(t.Context(), cookies[0].Value)
	require.NoError(t, err)
	user, session := hash(revoke.Subject, "ada"), hash(revoke.Session, c.SessionID)
	names := " sessiontoken.subject=" + user + " sessiontoken.session=" + session
	require.Equal(t, []string{"sessiontoken.begun sessiontoken.kind=begun" + names}, s.events)

	status, s, _ = ask("GET", "/me", cookies...)
	require.Equal(t, 200, status)
	require.Equal(t, map[string]string{"enduser.pseudo.id": user, "session.id": session, "sessiontoken.key_id": c.KeyID}, s.attributes)
	require.Empty(t, s.events)

	status, s, _ = ask("POST", "/renew", cookies...)
	require.Equal(t, 204, status)
	require.Equal(t, []string{"sessiontoken.renewed sessiontoken.kind=renewed" + names + " sessiontoken.reason=token"}, s.events)
	load := rec.spans[len(rec.spans)-1]
	require.Equal(t, "sessiontoken.load", load.name)
	require.Same(t, s, load.parent)
	require.Equal(t, user, load.attributes["enduser.pseudo.id"])

	status, s, _ = ask("POST", "/sign-out", cookies...)
	require.Equal(t, 200, status)
	require.Equal(t, []string{"sessiontoken.revoked sessiontoken.kind=revoked sessiontoken.session=" + session + " sessiontoken.reason=session"}, s.events)
	status, s, _ = ask("GET", "/me", cookies...)
	require.Equal(t, 401, status)
	require.Equal(t, map[string]string{"error.type": "sessiontoken.revoked"}, s.attributes)

	var all strings.Builder
	for _, s := range rec.spans {
		_, _ = fmt.Fprintln(&all, s.name, s.attributes, s.events)
	}
	for _, hidden := range []string{"ada", "clerk", cookies[0].Value, c.SessionID, c.TokenID} {
		require.NotContains(t, all.String(), hidden)
	}
}
