package main

import (
	"encoding/json"
	"net/http"
	"net/url"
	"slices"
	"testing"
	"time"

	"github.com/chromedp/chromedp"
	"github.com/stretchr/testify/require"
)

// TestDeploy: sessions that began before, in the middle of and after a deploy
// and its rollback go on at both releases with the same values. A deploy or a
// rollback renews the token of a session at most once.
func TestDeploy(t *testing.T) {
	site := start(t, time.Hour, newDeploy)
	type values struct {
		Name, Theme, Mail, Session string
		Roles                      []string
	}
	type member struct {
		*visitor
		values
		renewed int
	}
	var all []*member
	control := &visitor{site, map[string]string{}}
	for step, second := range []string{"0", "1", "2", "1", "0"} {
		resp, _ := control.ask(t, "POST", "/deploy", url.Values{"second": {second}})
		require.Equal(t, http.StatusSeeOther, resp.StatusCode)
		all = append(all, &member{visitor: newVisitor(t, site, "ada")})
		releases := map[string]bool{}
		for _, m := range all {
			for range 6 {
				before := m.cookies["__Host-session"]
				resp, body := m.ask(t, "GET", "/api/me", nil)
				require.Equal(t, http.StatusOK, resp.StatusCode, "step %d", step)
				var me struct {
					values
					Release string
				}
				require.NoError(t, json.Unmarshal([]byte(body), &me))
				if m.Session == "" {
					m.Session = me.Session
				}
				require.Equal(t, values{"Ada Lovelace", "light", "ada@example.com", m.Session, []string{"author", "editor"}}, me.values)
				require.NotEmpty(t, me.Session)
				releases[me.Release] = true
				if m.cookies["__Host-session"] != before {
					m.renewed++
				}
			}
		}
		require.Equal(t, map[string]map[string]bool{"0": {"1": true}, "1": {"1": true, "2": true}, "2": {"2": true}}[second], releases)
	}
	renewed := 0
	for _, m := range all {
		require.LessOrEqual(t, m.renewed, 1, "release 1 renews what it cannot read; release 2 upgrades it")
		renewed += m.renewed
		delete(m.cookies, "__Host-session") // the browser was closed
		resp, _ := m.ask(t, "POST", "/session/refresh", nil)
		require.Equal(t, http.StatusNoContent, resp.StatusCode)
		_, body := m.ask(t, "GET", "/api/me", nil)
		require.Contains(t, body, m.Session)
		resp, _ = m.ask(t, "POST", "/session/sign-out", nil)
		require.Equal(t, "/sign-in", resp.Header.Get("Location"))
		require.NotContains(t, m.cookies, "__Host-session")
	}
	require.Positive(t, renewed)
	resp, _ := control.ask(t, "POST", "/deploy", url.Values{"second": {"3"}})
	require.Equal(t, http.StatusBadRequest, resp.StatusCode)

	// The page tells a renewal.
	control.ask(t, "POST", "/deploy", url.Values{"second": {"2"}})
	v := newVisitor(t, site, "ada")
	control.ask(t, "POST", "/deploy", url.Values{"second": {"0"}})
	_, body := v.ask(t, "GET", "/", nil)
	require.Contains(t, body, "It has renewed the token.")
	_, body = v.ask(t, "GET", "/", nil)
	require.Contains(t, body, "It has not renewed the token.")
}

// TestDeployInBrowser: a person who looks at the page during a deploy and its
// rollback sees both releases, the same values, and no sign-in page.
func TestDeployInBrowser(t *testing.T) {
	site, ctx := start(t, ttl, newDeploy), browser(t)
	c := listen(t, ctx)
	signIn(t, ctx, site, "ada")
	session := text(t, ctx, "#session")
	seen := map[string][]string{}
	for _, second := range []string{"0", "1", "2", "1", "0"} {
		do(t, ctx, chromedp.Click(`button[name="second"][value="`+second+`"]`, chromedp.ByQuery))
		holds(t, ctx, `document.querySelector("[aria-pressed]").value === "`+second+`"`)
		for range 6 {
			do(t, ctx, chromedp.Navigate(site+"/?second="+second), chromedp.WaitVisible("#release, #password", chromedp.ByQuery))
			seen[second] = append(seen[second], text(t, ctx, "#release"))
			require.Equal(t, session, text(t, ctx, "#session"))
			require.Equal(t, "Hello, Ada Lovelace", text(t, ctx, "#who"))
			require.Equal(t, "author\neditor", text(t, ctx, "#roles"))
			require.Equal(t, "light", text(t, ctx, "#theme"))
			require.Equal(t, "ada@example.com", text(t, ctx, "#mail"))
			require.NotContains(t, text(t, ctx, "#state"), "example.com")
		}
		if second == "1" {
			picture(t, ctx, "deploy")
			var wrong []string
			do(t, ctx, chromedp.Evaluate(faults, &wrong))
			require.Empty(t, wrong)
		}
	}
	for second, want := range map[string][]string{"0": {"1"}, "1": {"1", "2"}, "2": {"2"}} {
		slices.Sort(seen[second])
		require.Equal(t, want, slices.Compact(seen[second]), second)
	}
	require.Empty(t, c.lines())
	do(t, ctx, chromedp.Navigate(site+"/"), chromedp.Click("#sign-out"), chromedp.WaitVisible("#password"))
	require.Empty(t, cookies(t, ctx, site))
}
