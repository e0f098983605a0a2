package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"

	"github.com/sessiontoken/sessiontoken/keys"
)

// doctorCommand looks for faults of a site, and changes nothing.
var doctorCommand = command{
	name:    "doctor",
	summary: "Looks for faults of a site, and says what to do; changes nothing",
	setup: func(fs *flag.FlagSet) func(context.Context, *call) error {
		d := &doctorConfig{site: addSite(fs), secrets: addSecrets(fs), inMemory: func(dir string) bool { return inMemoryHere(dir) }}
		fs.IntVar(&d.maxBytes, "max-bytes", issueBytes, "IssuerConfig.MaxBytes of the program")
		fs.StringVar(&d.cookieName, "cookie-name", "__Host-session", "`name` of the session cookie")
		fs.StringVar(&d.cookie, "cookie", "", "`file` with a Cookie header as a browser sends it, or - for standard input")
		fs.StringVar(&d.ca, "ca", "", "trust the certificates in this PEM `file` too")
		return d.run
	},
}

// inMemoryHere is inMemory, unless a test replaces it.
var inMemoryHere = inMemory

type doctorConfig struct {
	site                   *siteFlags
	secrets                *secretFlags
	maxBytes               int
	cookieName, cookie, ca string
	inMemory               func(dir string) bool
}

// The states of a check.
const (
	stateOK      = "ok"
	stateFound   = "found"
	stateSkipped = "skipped"
)

// checked is the result of one check.
type checked struct {
	Check  string `json:"check"`
	State  string `json:"state"`
	Text   string `json:"text"`
	Remedy string `json:"remedy,omitempty"`
}

// checkup is a list of results.
type checkup struct{ all []checked }

func (u *checkup) ok(check, format string, args ...any) {
	u.all = append(u.all, checked{Check: check, State: stateOK, Text: fmt.Sprintf(format, args...)})
}

func (u *checkup) skip(check, format string, args ...any) {
	u.all = append(u.all, checked{Check: check, State: stateSkipped, Text: fmt.Sprintf(format, args...)})
}

func (u *checkup) found(check, remedy, format string, args ...any) {
	u.all = append(u.all, checked{Check: check, State: stateFound, Text: fmt.Sprintf(format, args...), Remedy: remedy})
}

// has reports whether a check has a result.
func (u *checkup) has(check string) bool {
	for _, r := range u.all {
		if r.Check == check {
			return true
		}
	}
	return false
}

func (d *doctorConfig) run(ctx context.Context, c *call) error {
	if err := c.checkArgs(0, 0, "no arguments"); err != nil {
		return err
	}
	issuer := d.site.issuer
	if issuer == "" {
		issuer = c.getenv(issuerEnv)
	}
	f := d.site.store
	hasStore := f.url != "" || f.file != "" || c.getenv(f.env) != ""
	if !hasStore && issuer == "" && d.cookie == "" {
		return usageError{"there is nothing to look at; set --store with --issuer, --issuer alone or --cookie"}
	}
	var all checkup
	var ring *keys.Status
	if hasStore {
		type result struct {
			checkup
			ring *keys.Status
		}
		r, err := bounded(ctx, *d.site.timeout, func(ctx context.Context) (result, error) {
			var r result
			var err error
			r.ring, err = d.checkStore(ctx, c, &r.checkup)
			return r, err
		})
		switch wrong := (usageError{}); {
		case errors.As(err, &wrong):
			return err
		case err != nil && !r.has("store"):
			r.found("store", "check that the store's server runs and can be reached from here, and run this again", "the store does not answer: %v", err)
		}
		all.all, ring = append(all.all, r.all...), r.ring
	} else {
		all.skip("store", "no store is named: set --store")
	}
	if issuer != "" {
		client, err := clientTrusting(d.ca)
		if err != nil {
			return err
		}
		if client == nil {
			client = &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
		}
		ctx, cancel := context.WithTimeout(ctx, *d.site.timeout)
		defer cancel()
		checkIssuer(ctx, client, issuer, ring, &all)
	} else {
		all.skip("discovery", "no issuer is named: set --issuer")
	}
	if err := d.checkCookie(c, &all); err != nil {
		return err
	}
	return printCheckup(c, &all)
}

func printCheckup(c *call, u *checkup) error {
	found := 0
	for _, r := range u.all {
		if r.State == stateFound {
			found++
		}
	}
	var err error
	if c.json {
		enc := json.NewEncoder(c.out)
		enc.SetIndent("", "  ")
		enc.SetEscapeHTML(false)
		err = enc.Encode(map[string]any{"found": found, "checks": u.all})
	} else {
		var b strings.Builder
		for _, r := range u.all {
			label := map[string]string{stateOK: "ok     ", stateFound: "FOUND  ", stateSkipped: "skipped"}[r.State]
			fmt.Fprintf(&b, "%s %-12s %s\n", label, r.Check, r.Text)
			if r.Remedy != "" {
				fmt.Fprintf(&b, "        remedy: %s\n", r.Remedy)
			}
		}
		fmt.Fprintf(&b, "%d found; nothing was changed\n", found)
		_, err = io.WriteString(c.out, b.String())
	}
	switch {
	case err != nil:
		return fmt.Errorf("the result cannot be written: %w", err)
	case found > 0:
		return errNot
	}
	return nil
}

// The limits of browsers and proxies.
const (
	// maxCookie is how many bytes of name and value browsers keep (RFC 6265bis
	// section 5.6).
	maxCookie = 4096
	// maxHeaderLine is the longest header line that the proxies with the
	// smallest default take: 8190 in Apache httpd (LimitRequestFieldSize), 8 KiB
	// in nginx (large_client_header_buffers). An AWS ALB takes 16 KiB.
	maxHeaderLine = 8190
	// maxCookieFile is the longest file with a Cookie header.
	maxCookieFile = 1 << 20
)

// checkCookie compares the size of the session cookie with the limits.
func (d *doctorConfig) checkCookie(c *call, u *checkup) error {
	if size := len(d.cookieName) + d.maxBytes; size > maxCookie {
		u.found("cookie size", fmt.Sprintf("lower IssuerConfig.MaxBytes to %d or less, and move state that is larger to the server", maxCookie-len(d.cookieName)),
			"the cookie %s may have %d bytes, and browsers drop one of more than %d without an error", shown(d.cookieName), size, maxCookie)
	} else if d.cookie == "" {
		u.ok("cookie size", "the cookie has at most %d bytes of %d", size, maxCookie)
	}
	if d.cookie == "" {
		return nil
	}
	header, err := readCookies(c, d.cookie)
	if err != nil {
		return err
	}
	const name = "Cookie: "
	if line := len(name) + len(header); line > maxHeaderLine {
		u.found("cookie size", "set fewer and smaller cookies on this host, or raise the limit of each proxy in front (nginx large_client_header_buffers, Apache LimitRequestFieldSize)",
			"the Cookie header has %d bytes, and proxies refuse a line of more than 8 KiB as they come, with 400", line)
	} else {
		u.ok("cookie size", "the Cookie header has %d bytes of %d", line, maxHeaderLine)
	}
	seen := false
	for cookie := range strings.SplitSeq(header, ";") {
		n, value, _ := strings.Cut(strings.TrimSpace(cookie), "=")
		if n != d.cookieName {
			continue
		}
		if seen {
			u.found("cookie size", "delete the cookie in the browser, and set it on one host and one path alone", "the header has the cookie %s more than once, and requests with two sessions are refused", shown(n))
			break
		}
		seen = true
		if size := len(n) + len(value); size > maxCookie*9/10 {
			u.found("cookie size", "make the state smaller: 'sessiontoken inspect' shows the heaviest claims", "the cookie %s has %d bytes, and browsers drop one of more than %d", shown(n), size, maxCookie)
		}
	}
	if !seen {
		u.skip("cookie size", "the header has no cookie %s: set --cookie-name", shown(d.cookieName))
	}
	return nil
}

// readCookies returns the value of a Cookie header in a file.
func readCookies(c *call, file string) (string, error) {
	from := c.stdin
	if file != "-" {
		f, err := os.Open(file)
		if err != nil {
			var path *os.PathError
			if errors.As(err, &path) {
				err = path.Err
			}
			return "", fmt.Errorf("--cookie: the file cannot be opened: %w; name a file that holds a Cookie header", err)
		}
		defer f.Close()
		from = f
	}
	data, err := io.ReadAll(io.LimitReader(from, maxCookieFile+1))
	switch {
	case err != nil:
		return "", fmt.Errorf("--cookie: the header cannot be read: %w", err)
	case len(data) > maxCookieFile:
		return "", fmt.Errorf("--cookie: the file has more than %d bytes; it must hold one header", maxCookieFile)
	}
	header := strings.TrimSpace(string(data))
	if len(header) >= 7 && strings.EqualFold(header[:7], "cookie:") {
		header = strings.TrimSpace(header[7:])
	}
	return header, nil
}
