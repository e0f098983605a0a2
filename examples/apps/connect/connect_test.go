package connect_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"testing"

	"connectrpc.com/connect"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/sessiontoken/sessiontoken"
	"github.com/sessiontoken/sessiontoken/authority"
	"github.com/sessiontoken/sessiontoken/sessionhttp"
)

type (
	State struct{ Role string }
	text  = wrapperspb.StringValue
)

// newSite is one replica of a site with two methods behind a session.
func newSite(t *testing.T, store authority.Store) (*authority.Authority[State], *httptest.Server) {
	t.Helper()
	site, err := authority.New(authority.Config[State]{
		Issuer: "https://site.example", Audience: []string{"site"}, Store: store, Secrets: [][]byte{bytes.Repeat([]byte{1}, 32)},
		Load:   func(context.Context, *sessiontoken.Claims[State]) (State, error) { return State{"admin"}, nil },
		Logger: slog.New(slog.DiscardHandler),
	})
	require.NoError(t, err)
	s := site.Sessions()

	api := http.NewServeMux()
	api.Handle("/site.v1.Site/Who", connect.NewUnaryHandler("/site.v1.Site/Who", func(ctx context.Context, _ *connect.Request[text]) (*connect.Response[text], error) {
		c, _ := s.FromContext(ctx)
		return connect.NewResponse(wrapperspb.String(c.Subject + " " + c.State.Role)), nil
	}))
	api.Handle("/site.v1.Site/Watch", connect.NewServerStreamHandler("/site.v1.Site/Watch", func(ctx context.Context, _ *connect.Request[text], stream *connect.ServerStream[text]) error {
		c, _ := s.FromContext(ctx)
		live, err := s.Live(ctx, c, sessionhttp.LiveOptions{})
		if err != nil {
			return connect.NewError(connect.CodeUnauthenticated, err)
		}
		defer live.Stop()
		if err := stream.Send(wrapperspb.String("live")); err != nil {
			return err
		}
		<-live.Done() // and news, in a real one
		if errors.Is(context.Cause(live), sessionhttp.ErrUndecided) {
			return connect.NewError(connect.CodeUnavailable, errors.New("call again later"))
		}
		return connect.NewError(connect.CodeUnauthenticated, errors.New("the session has ended"))
	}))
	mux := http.NewServeMux()
	mux.Handle("/site.v1.Site/", s.Require(api))
	mux.HandleFunc("POST /sign-in", func(w http.ResponseWriter, r *http.Request) {
		if _, err := s.SignIn(w, r, sessiontoken.Start{Subject: "ada"}, State{"admin"}); err != nil {
			s.Refuse(w, r, err)
		}
	})
	server := httptest.NewUnstartedServer(mux)
	server.EnableHTTP2 = true
	server.StartTLS()
	t.Cleanup(server.Close)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); _ = site.Run(ctx) }()
	t.Cleanup(func() { cancel(); <-done })
	return site, server
}

func clients(server *httptest.Server, options ...connect.ClientOption) (who, watch *connect.Client[text, text]) {
	return connect.NewClient[text, text](server.Client(), server.URL+"/site.v1.Site/Who", options...),
		connect.NewClient[text, text](server.Client(), server.URL+"/site.v1.Site/Watch", options...)
}

func request(header http.Header) *connect.Request[text] {
	r := connect.NewRequest(wrapperspb.String(""))
	for name, values := range header {
		r.Header()[name] = values
	}
	return r
}

// TestConnect: all three protocols that connect-go speaks, with a cookie and with
// a Bearer token, and a stream that is open when the user signs out elsewhere.
func TestConnect(t *testing.T) {
	store := authority.Memory()
	here, server := newSite(t, store)
	there, _ := newSite(t, store)
	for _, protocol := range []struct {
		name    string
		options []connect.ClientOption
	}{{"connect", nil}, {"gRPC", []connect.ClientOption{connect.WithGRPC()}}, {"gRPC-Web", []connect.ClientOption{connect.WithGRPCWeb()}}} {
		t.Run(protocol.name, func(t *testing.T) {
			who, watch := clients(server, protocol.options...)
			_, err := who.CallUnary(t.Context(), request(nil))
			require.Equal(t, connect.CodeUnauthenticated, connect.CodeOf(err), "%v", err)

			for _, name := range []string{"cookie", "bearer"} {
				header := signedIn(t, here, server, name)
				answer, err := who.CallUnary(t.Context(), request(header))
				require.NoError(t, err, name)
				require.Equal(t, "ada admin", answer.Msg.Value)

				stream, err := watch.CallServerStream(t.Context(), request(header))
				require.NoError(t, err, name)
				require.True(t, stream.Receive(), "%v", stream.Err())
				require.NoError(t, there.Revocations().RevokeSubject(t.Context(), "ada"))
				require.False(t, stream.Receive())
				require.Equal(t, connect.CodeUnauthenticated, connect.CodeOf(stream.Err()), "%v", stream.Err())
				require.NoError(t, stream.Close())
				_, err = who.CallUnary(t.Context(), request(header))
				require.Equal(t, connect.CodeUnauthenticated, connect.CodeOf(err), "%v", err)
			}
		})
	}
}

// signedIn returns the header of a client with a new session.
func signedIn(t *testing.T, site *authority.Authority[State], server *httptest.Server, by string) http.Header {
	t.Helper()
	if by == "bearer" {
		token, _, err := site.Issuer().Issue(t.Context(), "ada", State{"admin"})
		require.NoError(t, err)
		return http.Header{"Authorization": {"Bearer " + token}}
	}
	resp, err := server.Client().Post(server.URL+"/sign-in", "", nil)
	require.NoError(t, err)
	require.NoError(t, resp.Body.Close())
	require.Len(t, resp.Cookies(), 1)
	c := resp.Cookies()[0]
	return http.Header{"Cookie": {c.Name + "=" + c.Value}}
}
