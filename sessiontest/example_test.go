package sessiontest_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/sessiontoken/sessiontoken"
	"github.com/sessiontoken/sessiontoken/sessiontest"
)

func ExampleWith() {
	t := new(testing.T) // a test's own
	sessions := newSessions(t)
	handler := sessions.Require(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c, _ := sessions.FromContext(r.Context())
		_, _ = fmt.Fprintf(w, "%s is %s", c.Subject, c.State.Role)
	}))

	r := httptest.NewRequest("GET", "/", nil)
	r = sessiontest.With(sessions, r, sessiontoken.Claims[state]{Subject: "ada", State: state{Role: "admin"}})
	w := httptest.NewRecorder()
	handler.ServeHTTP(w, r)
	fmt.Println(w.Code, w.Body)
	// Output: 200 ada is admin
}
