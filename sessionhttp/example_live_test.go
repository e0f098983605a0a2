package sessionhttp_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"log"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"

	"github.com/sessiontoken/sessiontoken"
	"github.com/sessiontoken/sessiontoken/revoke"
	"github.com/sessiontoken/sessiontoken/sessionhttp"
)

// A stream of server-sent events that ends when the user signs out, in another
// tab or at another replica. The Run of the list must be called, as that of an
// authority does.
func ExampleSessions_Live() {
	sessions := exampleSessions()
	mux := http.NewServeMux()
	mux.Handle("GET /events", sessions.Require(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		claims, _ := sessions.FromContext(r.Context())
		live, err := sessions.Live(r.Context(), claims, sessionhttp.LiveOptions{})
		if err != nil {
			sessions.Refuse(w, r, err)
			return
		}
		defer live.Stop()
		w.Header().Set("Content-Type", "text/event-stream")
		out := http.NewResponseController(w)
		_, _ = fmt.Fprintf(w, "data: hello %s\n\n", live.Claims().State.Name)
		_ = out.Flush()
		<-live.Done() // beside the channels of the application
		switch why := context.Cause(live); {
		case errors.Is(why, revoke.ErrRevoked):
			_, _ = fmt.Fprint(w, "event: signed-out\ndata:\n\n")
		case errors.Is(why, sessionhttp.ErrUndecided):
			_, _ = fmt.Fprint(w, "retry: 5000\n\n") // the browser connects again
		}
	})))
	mux.HandleFunc("POST /sign-in", func(w http.ResponseWriter, r *http.Request) {
		if _, err := sessions.SignIn(w, r, sessiontoken.Start{Subject: "user-42"}, Account{"Ada", "admin"}); err != nil {
			sessions.Refuse(w, r, err)
		}
	})
	mux.HandleFunc("POST /sign-out", func(w http.ResponseWriter, r *http.Request) {
		if err := sessions.SignOut(w, r); err != nil {
			sessions.Refuse(w, r, err)
		}
	})

	site := httptest.NewTLSServer(mux)
	defer site.Close()
	browser := site.Client()
	browser.Jar, _ = cookiejar.New(nil)
	send := func(method, path string) *http.Response {
		r, err := http.NewRequest(method, site.URL+path, nil)
		if err != nil {
			log.Fatal(err)
		}
		r.Header.Set("Sec-Fetch-Site", "same-origin")
		answer, err := browser.Do(r)
		if err != nil {
			log.Fatal(err)
		}
		return answer
	}
	send("POST", "/sign-in").Body.Close()
	stream := send("GET", "/events")
	defer stream.Body.Close()
	for lines := bufio.NewScanner(stream.Body); lines.Scan(); {
		if lines.Text() == "" {
			continue
		}
		fmt.Println(lines.Text())
		if lines.Text() == "data: hello Ada" {
			send("POST", "/sign-out").Body.Close()
		}
	}
	// Output:
	// data: hello Ada
	// event: signed-out
	// data:
}
