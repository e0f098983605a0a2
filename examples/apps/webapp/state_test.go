package main

import (
	"encoding/base64"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/chromedp/chromedp"
	"github.com/stretchr/testify/require"
)

// visitor is a client with cookies over http, which net/http/cookiejar would not
// send.
type visitor struct {
	site    string
	cookies map[string]string
}

func (v *visitor) ask(t *testing.T, method, path string, form url.Values) (*http.Response, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, v.site+path, strings.NewReader(form.Encode()))
	require.NoError(t, err)
	if form != nil {
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	for name, value := range v.cookies {
		req.AddCookie(&http.Cookie{Name: name, Value: value})
	}
	resp, err := http.DefaultTransport.RoundTrip(req)
	require.NoError(t, err)
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	for _, c := range resp.Cookies() {
		if v.cookies[c.Name] = c.Value; c.MaxAge < 0 {
			delete(v.cookies, c.Name)
		}
	}
	return resp, string(body)
}

func newVisitor(t *testing.T, site, user string) *visitor {
	t.Helper()
	v := &visitor{site, map[string]string{}}
	resp, _ := v.ask(t, "POST", "/sign-in", url.Values{"user": {user}, "password": {"demo"}})
	require.Equal(t, http.StatusSeeOther, resp.StatusCode)
	require.Contains(t, v.cookies, "__Host-session")
	return v
}

// TestMailIsSealed: the page shows the e-mail address, and nothing that is sent
// to the browser beside it does: no cookie in any base64 layer, no header, and
// no answer of the API, which reads the other fields.
func TestMailIsSealed(t *testing.T) {
	const mail = "ada@example.com"
	v := newVisitor(t, site(t), "ada")
	resp, body := v.ask(t, "GET", "/", nil)
	require.Equal(t, http.StatusOK, resp.StatusCode)
	require.Contains(t, body, mail)
	for name, values := range resp.Header {
		require.NotContains(t, layers(strings.Join(values, " ")), mail, name)
	}
	resp, body = v.ask(t, "GET", "/badge", nil)
	require.Equal(t, http.StatusOK, resp.StatusCode)
	require.JSONEq(t, `{"name": "Ada Lovelace", "roles": ["author", "editor"], "mail": "not readable here"}`, body)

	for name, value := range v.cookies {
		require.NotContains(t, layers(value), mail, name)
	}
	require.Contains(t, layers(v.cookies["__Host-session"]), "Ada Lovelace", "layers are found")
	require.Contains(t, layers(base64.RawURLEncoding.EncodeToString([]byte(`{"mail":"`+base64.RawURLEncoding.EncodeToString([]byte(mail))+`"}`))), mail)
	resp, body = v.ask(t, "POST", "/api/page-tokens", nil)
	require.Equal(t, http.StatusOK, resp.StatusCode)
	require.NotContains(t, layers(body), mail)
	require.Contains(t, layers(body), "Ada Lovelace")
}

// layers returns a text, and below it what its parts are in base64, and theirs.
func layers(text string) string {
	all := text
	for _, part := range strings.FieldsFunc(text, func(r rune) bool { return strings.ContainsRune(`."{}[]:, `, r) }) {
		if raw, err := base64.RawURLEncoding.DecodeString(part); err == nil && len(raw) > 2 {
			all += "\n" + layers(string(raw))
		}
	}
	return all
}

// TestMailInBrowser: a person sees the address on the page of their session, and
// not in the tokens that a script can read.
func TestMailInBrowser(t *testing.T) {
	site, ctx := site(t), browser(t)
	signIn(t, ctx, site, "grace")
	becomes(t, ctx, "#mail", "grace@example.com")
	do(t, ctx, chromedp.Navigate(site+"/verify"))
	becomes(t, ctx, "#summary", "4 of 4 verified in this browser")
	shown := text(t, ctx, "#claims")
	require.Contains(t, shown, "Grace Hopper")
	require.Contains(t, shown, `"sld": "/mail"`)
	require.NotContains(t, shown, "grace@example.com")
	do(t, ctx, chromedp.Navigate(site+"/badge"))
	require.Contains(t, text(t, ctx, "body"), "not readable here")
}
