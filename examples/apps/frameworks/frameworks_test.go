package frameworks_test

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"

	"github.com/gin-gonic/gin"
	"github.com/go-chi/chi/v5"
	"github.com/labstack/echo/v4"

	"github.com/sessiontoken/sessiontoken"
	"github.com/sessiontoken/sessiontoken/keys"
	"github.com/sessiontoken/sessiontoken/revoke"
	"github.com/sessiontoken/sessiontoken/sessionhttp"
)

type State struct{ Role string }

// newSessions is the same for every framework.
func newSessions() *sessionhttp.Sessions[State] {
	ring := must(keys.NewRing(keys.RingConfig{Store: new(keys.MemStore), Logger: slog.New(slog.DiscardHandler)}))
	revocations := must(revoke.NewList(revoke.Config{Store: new(revoke.MemStore)}))
	issuer := must(sessiontoken.NewIssuer[State](sessiontoken.IssuerConfig{Issuer: "https://a.example", Audience: []string{"web"}, Keys: ring, Revocations: revocations}))
	verifier := must(sessiontoken.NewVerifier[State](sessiontoken.VerifierConfig{Issuer: "https://a.example", Audience: "web", Keys: ring, Revocations: revocations}))
	return must(sessionhttp.New(sessionhttp.Config[State]{
		Verifier: verifier, Issuer: issuer, Revocations: revocations,
		Load: func(context.Context, *sessiontoken.Claims[State]) (State, error) { return State{"admin"}, nil },
	}))
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// visit signs in and asks who it is, with and without the cookie.
func visit(h http.Handler) {
	server := httptest.NewServer(h)
	defer server.Close()
	resp := must(http.Post(server.URL+"/sign-in", "", nil))
	_ = resp.Body.Close()
	for _, cookies := range [][]*http.Cookie{nil, resp.Cookies()} {
		req := must(http.NewRequest("GET", server.URL+"/me", nil))
		for _, c := range cookies {
			req.AddCookie(c)
		}
		resp := must(http.DefaultClient.Do(req))
		fmt.Println(resp.StatusCode, string(must(io.ReadAll(resp.Body))))
		_ = resp.Body.Close()
	}
}

func Example_chi() {
	sessions := newSessions()
	r := chi.NewRouter()
	r.Post("/sign-in", func(w http.ResponseWriter, r *http.Request) {
		if _, err := sessions.SignIn(w, r, sessiontoken.Start{Subject: "ada"}, State{"admin"}); err != nil {
			sessions.Refuse(w, r, err)
		}
	})
	r.Group(func(r chi.Router) {
		r.Use(sessions.Require)
		r.Get("/me", func(w http.ResponseWriter, r *http.Request) {
			c, _ := sessions.FromContext(r.Context())
			_, _ = fmt.Fprint(w, c.Subject, " ", c.State.Role)
		})
	})
	visit(r)
	// Output:
	// 401 Unauthorized
	//
	// 200 ada admin
}

func Example_echo() {
	sessions := newSessions()
	e := echo.New()
	e.POST("/sign-in", func(c echo.Context) error {
		_, err := sessions.SignIn(c.Response(), c.Request(), sessiontoken.Start{Subject: "ada"}, State{"admin"})
		if err != nil {
			sessions.Refuse(c.Response(), c.Request(), err)
		}
		return nil
	})
	e.GET("/me", func(c echo.Context) error {
		claims, _ := sessions.FromContext(c.Request().Context())
		return c.String(http.StatusOK, claims.Subject+" "+claims.State.Role)
	}, echo.WrapMiddleware(sessions.Require))
	visit(e)
	// Output:
	// 401 Unauthorized
	//
	// 200 ada admin
}

// required is gin's Require: Check says who it is, Refuse answers the rest.
func required(sessions *sessionhttp.Sessions[State]) gin.HandlerFunc {
	return func(c *gin.Context) {
		claims, err := sessions.Check(c.Writer, c.Request)
		if err != nil {
			sessions.Refuse(c.Writer, c.Request, err)
			c.Abort()
			return
		}
		c.Set("session", claims)
	}
}

func Example_gin() {
	sessions := newSessions()
	gin.SetMode(gin.ReleaseMode)
	e := gin.New()
	e.POST("/sign-in", func(c *gin.Context) {
		if _, err := sessions.SignIn(c.Writer, c.Request, sessiontoken.Start{Subject: "ada"}, State{"admin"}); err != nil {
			sessions.Refuse(c.Writer, c.Request, err)
		}
	})
	e.GET("/me", required(sessions), func(c *gin.Context) {
		claims := c.MustGet("session").(*sessiontoken.Claims[State])
		c.String(http.StatusOK, claims.Subject+" "+claims.State.Role)
	})
	visit(e)
	// Output:
	// 401 Unauthorized
	//
	// 200 ada admin
}
