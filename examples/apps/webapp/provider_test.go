package main

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/chromedp"
	"github.com/stretchr/testify/require"
)

// atProvider types a user's name and password into the provider's form.
func atProvider(t *testing.T, ctx context.Context, user string) {
	t.Helper()
	do(t, ctx, chromedp.WaitVisible("#provider-password"), chromedp.SendKeys("#provider-user", user), chromedp.SendKeys("#provider-password", "demo\r"))
}

// TestProvider: people sign in with the provider, and sign out here alone or
// there too. The provider's logout ends the session under an open page, and a
// sign-in with the form of this site is not touched by it.
func TestProvider(t *testing.T) {
	site, ctx := site(t), browser(t)
	do(t, ctx, chromedp.Navigate(site+"/sign-in"), chromedp.Click("#provider"))
	atProvider(t, ctx, "ada")
	becomes(t, ctx, "#subject", "ada")
	becomes(t, ctx, "#live", "Live")
	session := text(t, ctx, "#session")
	require.Equal(t, 2, strings.Count(session, "."))
	picture(t, ctx, "provider")

	// Signed out here, the next sign-in needs no password.
	do(t, ctx, chromedp.Click("#sign-out"), chromedp.WaitVisible("#provider"), chromedp.Click("#provider"))
	becomes(t, ctx, "#subject", "ada")
	require.NotEqual(t, session, text(t, ctx, "#session"))
	becomes(t, ctx, "#live", "Live")

	// Signed out there too, it does. Pages in other tabs end, whose sign-in it was.
	other := tab(t, ctx)
	do(t, other, chromedp.Navigate(site+"/"), chromedp.WaitVisible("#session"))
	becomes(t, other, "#live", "Live")
	form := window(t, ctx)
	signIn(t, form, site, "ada")
	becomes(t, form, "#live", "Live")
	do(t, ctx, chromedp.Click("#sign-out-all"), chromedp.WaitVisible("#provider-end"), chromedp.Click("#provider-end"), chromedp.WaitVisible("#provider"))
	do(t, other, chromedp.WaitVisible("#gone"))
	require.Equal(t, 401, status(t, other, "GET", "/api/me"))
	require.Equal(t, 200, status(t, form, "GET", "/api/me"))
	holds(t, form, `document.getElementById("sign-out-all") === null`)
	do(t, ctx, chromedp.Click("#provider"), chromedp.WaitVisible("#provider-password"))
}

// TestProviderLogout: a logout at the provider ends the session here, though the
// user was not here.
func TestProviderLogout(t *testing.T) {
	site, ctx := site(t), browser(t)
	do(t, ctx, chromedp.Navigate(site+"/sign-in"), chromedp.Click("#provider"), chromedp.WaitVisible("#provider-password"))
	var issuer string
	do(t, ctx, chromedp.Evaluate("location.origin", &issuer))
	atProvider(t, ctx, "grace")
	becomes(t, ctx, "#live", "Live")
	there := tab(t, ctx)
	do(t, there, chromedp.Navigate(issuer+"/end"), chromedp.Click("#provider-end"), chromedp.WaitVisible("#provider-ended"))
	do(t, ctx, chromedp.WaitVisible("#gone"))
	require.Equal(t, 401, status(t, ctx, "POST", "/session/refresh"), "nor can it be resumed")
}

// TestPayments: a page that needs a recent sign-in goes through the provider, and
// comes back with another session.
func TestPayments(t *testing.T) {
	site, ctx := site(t), browser(t)
	signIn(t, ctx, site, "ada")
	do(t, ctx, chromedp.Click("#to-payments"), chromedp.WaitVisible("#payments"))
	deadline := time.Now().Add(time.Minute)
	for { // until that is too long ago
		require.True(t, time.Now().Before(deadline))
		do(t, ctx, chromedp.Navigate(site+"/payments"), chromedp.WaitVisible("#payments, #provider-password", chromedp.ByQuery))
		var asked bool
		do(t, ctx, chromedp.Evaluate(`document.getElementById("provider-password") !== null`, &asked))
		if asked {
			break
		}
		time.Sleep(time.Second)
	}
	atProvider(t, ctx, "ada")
	do(t, ctx, chromedp.WaitVisible("#payments"))
	do(t, ctx, chromedp.Navigate(site+"/"), chromedp.WaitVisible("#session"))
	becomes(t, ctx, "#subject", "ada")
	require.Equal(t, 2, strings.Count(text(t, ctx, "#session"), "."))
	becomes(t, ctx, "#devices", "Signed in on 1 device") // the session before is replaced
}
