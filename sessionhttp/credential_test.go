package sessionhttp_test

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/sessiontoken/sessiontoken"
	"github.com/sessiontoken/sessiontoken/sessionhttp"
	"github.com/stretchr/testify/require"
)

func TestCredentials(t *testing.T) {
	r := newSite(t).replica()
	good, other := r.signIn(t), r.signIn(t)
	auth := func(v string) []string { return []string{"Authorization", v} }
	tests := []struct {
		name    string
		cookie  string
		header  []string
		status  int
		problem string
	}{
		{"nothing", "", nil, 401, ""},
		{"cookie", good, nil, 200, ""},
		{"bearer", "", auth("Bearer " + good), 200, ""},
		{"scheme in another case", "", auth("bEARER " + good), 200, ""},
		{"bad header beside a good cookie", good, auth("Bearer " + good + "x"), 401, "invalid_token"},
		{"good header beside a bad cookie", "bad", auth("Bearer " + good), 200, ""},
		{"two headers", "", append(bearer("Bearer "+good), auth("Bearer "+good)...), 400, "invalid_request"},
		{"two spaces", "", auth("Bearer  " + good), 400, "invalid_request"},
		{"a space behind", "", auth("Bearer " + good + " "), 400, "invalid_request"},
		{"a tab", "", auth("Bearer\t" + good), 401, ""},
		{"no token", "", auth("Bearer"), 400, "invalid_request"},
		{"an empty token", "", auth("Bearer "), 400, "invalid_request"},
		{"only padding", "", auth("Bearer =="), 400, "invalid_request"},
		{"a list", "", auth("Bearer " + good + ", Bearer " + good), 400, "invalid_request"},
		{"quotes", "", auth(`Bearer "` + good + `"`), 400, "invalid_request"},
		{"not ASCII", "", auth("Bearer é"), 400, "invalid_request"},
		{"an empty header beside a good cookie", good, auth(""), 200, ""},
		{"another scheme beside a good cookie", good, auth("Basic YTpi"), 200, ""},
		{"another scheme alone", "", auth("Basic YTpi"), 401, ""},
		{"another scheme beside a token", "", append(auth("Basic YTpi"), auth("Bearer "+good)...), 400, "invalid_request"},
		{"a cookie of another", "garbage", nil, 401, "invalid_token"},
		{"an empty cookie", "", []string{"Cookie", name + "="}, 401, "invalid_token"},
		{"two cookies", good, []string{"Cookie", name + "=" + other}, 400, "invalid_request"},
		{"one cookie twice", good + "; " + name + "=" + good, nil, 200, ""},
		{"8 KB of cookies", good, []string{"Cookie", strings.Repeat("a=bbbbbbbb; ", 800)}, 200, ""},
		{"a cookie of 8 KB", strings.Repeat("a", 8200), nil, 401, "invalid_token"},
		{"another case of the name", "", []string{"Cookie", "__HOST-session=" + good}, 401, ""},
		{"another case of the name, 2", "", []string{"Cookie", "__host-session=" + good}, 401, ""},
		{"without the prefix", "", []string{"Cookie", "session=" + good}, 401, ""},
		{"a bearer of 100 KB", "", auth("Bearer " + strings.Repeat("a", 100_000)), 401, "invalid_token"},
	}
	var outward string
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			resp := r.do(request("GET", "/who?access_token="+good, tt.cookie, tt.header...))
			require.Equal(t, tt.status, resp.StatusCode)
			challenge := resp.Header.Get("WWW-Authenticate")
			text := body(t, resp)
			switch {
			case tt.status == 200:
				require.Empty(t, challenge)
				return
			case tt.problem == "":
				require.Equal(t, "Bearer", challenge, "no credentials, so no error code")
			default:
				require.True(t, strings.HasPrefix(challenge, `Bearer error="`+tt.problem+`"`), challenge)
			}
			if tt.status == 401 {
				if outward == "" {
					outward = text
				}
				require.Equal(t, outward, text, "one body for all")
			}
			require.Contains(t, held(resp, "Cache-Control"), "no-store")
		})
	}
}

func TestOptional(t *testing.T) {
	r := newSite(t).replica()
	cookie := r.signIn(t)
	for _, tt := range []struct {
		cookie, auth, want string
		status             int
	}{
		{"", "", "no session", 200}, {"garbage", "", "no session", 200}, {cookie, "", "ada", 200},
		{"", "Bearer " + cookie, "ada", 200}, {cookie, "Bearer garbage", "", 401}, {"", "Bearer  x", "", 400},
	} {
		var header []string
		if tt.auth != "" {
			header = []string{"Authorization", tt.auth}
		}
		resp := r.do(request("GET", "/maybe", tt.cookie, header...))
		require.Equal(t, tt.status, resp.StatusCode)
		if tt.status == 200 {
			require.True(t, strings.HasPrefix(body(t, resp), tt.want))
		}
	}
}

func TestUnauthorizedHandler(t *testing.T) {
	r := newSite(t).replica(func(c *sessionhttp.Config[state]) {
		c.Unauthorized = http.RedirectHandler("/sign-in", http.StatusSeeOther)
	})
	resp := r.do(request("GET", "/who", "garbage"))
	require.Equal(t, 303, resp.StatusCode)
	require.Contains(t, held(resp, "Cache-Control"), "no-store")
	require.Equal(t, 400, r.do(request("GET", "/who", "", "Authorization", "Bearer  x")).StatusCode)
}

func TestReadOnlyAPI(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newSite(t)
		r := s.replica()
		api := s.replica(func(c *sessionhttp.Config[state]) { c.Issuer, c.Load, c.Revocations, c.Refresh = nil, nil, nil, nil })
		cookie := r.signIn(t)
		require.Equal(t, 200, api.do(request("GET", "/who", cookie)).StatusCode)
		time.Sleep(6 * time.Minute)
		require.Equal(t, 401, api.do(request("GET", "/who", cookie)).StatusCode)
		require.Equal(t, 500, api.do(request("POST", "/in", "")).StatusCode)
		require.Equal(t, 500, api.do(request("POST", "/out", cookie)).StatusCode)
		require.Equal(t, 404, api.do(request("POST", "/refresh", "")).StatusCode)
	})
}

// A token for another API is refused with a reason of its own.
func TestWrongAudience(t *testing.T) {
	s := newSite(t)
	r := s.replica()
	issuer, err := sessiontoken.NewIssuer[state](sessiontoken.IssuerConfig{Issuer: "https://a.example", Audience: []string{"other"}, Keys: s.source})
	require.NoError(t, err)
	token, _, err := issuer.Issue(t.Context(), "ada", state{})
	require.NoError(t, err)
	resp := r.do(request("GET", "/who", "", "Authorization", "Bearer "+token))
	require.Equal(t, 401, resp.StatusCode)
	require.Equal(t, `Bearer error="invalid_token", error_description="wrong audience"`, resp.Header.Get("WWW-Authenticate"))
}

func TestRequireFresh(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := newSite(t).replica()
		cookie := r.signIn(t)
		time.Sleep(10 * time.Minute)
		resp := r.do(request("POST", "/pay", cookie))
		require.Equal(t, 200, resp.StatusCode)
		cookie = cookieOf(t, resp)
		time.Sleep(time.Second)
		resp = r.do(request("POST", "/pay", cookie))
		require.Equal(t, 401, resp.StatusCode, "a new token is no new sign-in")
		require.Equal(t, `Bearer error="insufficient_user_authentication", error_description="sign in again", max_age=600`, resp.Header.Get("WWW-Authenticate"))
		require.Equal(t, 200, r.do(request("GET", "/who", cookie)).StatusCode)
		require.Equal(t, 401, r.do(request("POST", "/pay", "")).StatusCode)
	})
}

// The header of a refusal is well formed whatever came in, and holds none of it.
func FuzzAuthorization(f *testing.F) {
	s := newSite(f)
	r := s.replica(func(c *sessionhttp.Config[state]) { c.OnRefused = nil })
	f.Add("Bearer x", "y")
	f.Add("Bearer \"\r\nX: y", "a=b; __Host-session=c")
	f.Add("", "__Host-session=a; __Host-session=b")
	allowed := map[string]bool{"": true, "Bearer": true, `Bearer error="invalid_request"`: true, `Bearer error="invalid_token", error_description="not valid"`: true}
	f.Fuzz(func(t *testing.T, auth, cookie string) {
		req := request("GET", "/who", "")
		if auth != "" {
			req.Header["Authorization"] = []string{auth}
		}
		req.Header["Cookie"] = []string{cookie}
		resp := r.do(req)
		require.Contains(t, []int{400, 401}, resp.StatusCode)
		require.True(t, allowed[resp.Header.Get("WWW-Authenticate")], resp.Header.Get("WWW-Authenticate"))
	})
}
