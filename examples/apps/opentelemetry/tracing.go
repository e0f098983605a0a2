package main

import (
	"context"
	"encoding/hex"
	"log/slog"
	"net/http"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"

	"github.com/sessiontoken/sessiontoken"
	"github.com/sessiontoken/sessiontoken/event"
	"github.com/sessiontoken/sessiontoken/revoke"
	"github.com/sessiontoken/sessiontoken/sessionhttp"
)

// onEvent adds each event to the span of the call that caused it. It is for
// authority.Config.OnEvent. Events of keys have no span.
func onEvent(ctx context.Context, e event.Event) {
	span := trace.SpanFromContext(ctx)
	if !span.IsRecording() {
		return
	}
	var attributes []attribute.KeyValue
	for _, a := range e.LogValue().Group() {
		key := "sessiontoken." + a.Key
		switch v := a.Value; v.Kind() {
		case slog.KindBool:
			attributes = append(attributes, attribute.Bool(key, v.Bool()))
		case slog.KindInt64:
			attributes = append(attributes, attribute.Int64(key, v.Int64()))
		default:
			attributes = append(attributes, attribute.String(key, v.String()))
		}
	}
	span.AddEvent("sessiontoken."+string(e.Kind), trace.WithAttributes(attributes...))
	if e.Kind == event.Refused {
		span.SetAttributes(attribute.String("error.type", "sessiontoken."+e.Reason))
	}
}

// named adds to the span of a request whose session it is. It goes inside of
// Require, which goes inside of the middleware that makes the span.
func named[T any](s *sessionhttp.Sessions[T], next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if c, ok := s.FromContext(r.Context()); ok {
			trace.SpanFromContext(r.Context()).SetAttributes(attributesOf(c)...)
		}
		next.ServeHTTP(w, r)
	})
}

// attributesOf returns what a span may say about a session: no token, no state,
// and hashes for names, as the events have them.
func attributesOf[T any](c *sessiontoken.Claims[T]) []attribute.KeyValue {
	attributes := []attribute.KeyValue{
		attribute.String("enduser.pseudo.id", hash(revoke.Subject, c.Subject)),
		attribute.String("session.id", hash(revoke.Session, c.SessionID)),
		attribute.String("sessiontoken.key_id", c.KeyID),
	}
	if a := c.Actor(); a != nil {
		attributes = append(attributes, attribute.String("sessiontoken.actor", hash(revoke.Subject, a.Subject)))
	}
	return attributes
}

func hash(scope revoke.Scope, name string) string {
	d := scope.Digest(name)
	return hex.EncodeToString(d[:])
}

// traced makes a span of each call of Load: most of the time of a renewal is
// spent there.
func traced[T any](tracer trace.Tracer, load func(context.Context, *sessiontoken.Claims[T]) (T, error)) func(context.Context, *sessiontoken.Claims[T]) (T, error) {
	return func(ctx context.Context, old *sessiontoken.Claims[T]) (T, error) {
		ctx, span := tracer.Start(ctx, "sessiontoken.load", trace.WithAttributes(attributesOf(old)...))
		defer span.End()
		state, err := load(ctx, old)
		if err != nil {
			span.SetStatus(codes.Error, "load") // the text of an error may name a person
		}
		return state, err
	}
}
