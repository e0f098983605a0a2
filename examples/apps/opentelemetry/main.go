// Command opentelemetry is a server whose spans say whose session a request has,
// and what happened to it. What is worth copying is in tracing.go, and README.md
// lists the attributes.
//
// It prints its events. A real server sets an exporter with otel.SetTracerProvider,
// and makes the span of each request with otelhttp.
package main

import (
	"context"
	"fmt"
	"log"
	"log/slog"
	"net/http"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/trace"

	"github.com/sessiontoken/sessiontoken"
	"github.com/sessiontoken/sessiontoken/authority"
	"github.com/sessiontoken/sessiontoken/event"
)

// State is what a session carries.
type State struct {
	Role string `json:"role"`
}

func newSite(tracer trace.Tracer) (*authority.Authority[State], http.Handler, error) {
	load := func(context.Context, *sessiontoken.Claims[State]) (State, error) { return State{Role: "clerk"}, nil }
	site, err := authority.New(authority.Config[State]{
		Issuer: "http://localhost:8322", Audience: []string{"site"}, Store: authority.Memory(), Load: traced(tracer, load),
		OnEvent: func(ctx context.Context, e event.Event) {
			onEvent(ctx, e)
			slog.InfoContext(ctx, "session", "event", e)
		},
	})
	if err != nil {
		return nil, nil, err
	}
	s := site.Sessions()
	mux := http.NewServeMux()
	mux.HandleFunc("POST /sign-in", func(w http.ResponseWriter, r *http.Request) {
		if _, err := s.SignIn(w, r, sessiontoken.Start{Subject: "ada"}, State{Role: "clerk"}); err != nil {
			s.Refuse(w, r, err)
		}
	})
	mux.HandleFunc("POST /sign-out", func(w http.ResponseWriter, r *http.Request) {
		if err := s.SignOut(w, r); err != nil {
			s.Refuse(w, r, err)
		}
	})
	mux.Handle("POST /renew", site.RenewHandler())
	mux.Handle("GET /me", s.Require(named(s, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c, _ := s.FromContext(r.Context())
		_, _ = fmt.Fprintln(w, c.State.Role)
	}))))
	return site, spans(tracer, mux), nil
}

// spans makes a span of each request, as otelhttp does.
func spans(tracer trace.Tracer, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ctx, span := tracer.Start(r.Context(), r.Method+" "+r.URL.Path, trace.WithSpanKind(trace.SpanKindServer))
		defer span.End()
		next.ServeHTTP(w, r.WithContext(ctx))
	})
}

func main() {
	site, handler, err := newSite(otel.Tracer("site"))
	if err != nil {
		log.Fatal(err)
	}
	go func() { _ = site.Run(context.Background()) }()
	fmt.Println("curl -c jar -X POST http://localhost:8322/sign-in; curl -b jar http://localhost:8322/me")
	log.Fatal(http.ListenAndServe("localhost:8322", handler))
}
