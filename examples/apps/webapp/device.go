package main

import (
	"net/http"
	"strings"
)

// named is a text of a User-Agent, and what people call it.
type named struct{ text, name string }

// browsers and platforms are in this order since the later texts are also in the
// User-Agents of the earlier ones.
var (
	browsers = []named{
		{"Edg", "Edge"}, {"OPR/", "Opera"}, {"SamsungBrowser", "Samsung Internet"}, {"Firefox", "Firefox"}, {"FxiOS", "Firefox"},
		{"CriOS", "Chrome"}, {"Chrome", "Chrome"}, {"Safari", "Safari"}, {"curl", "curl"}, {"Go-http-client", "Go program"},
	}
	platforms = []named{
		{"iPhone", "iPhone"}, {"iPad", "iPad"}, {"Android", "Android"}, {"CrOS", "ChromeOS"},
		{"Windows", "Windows"}, {"Macintosh", "Mac"}, {"Linux", "Linux"},
	}
)

// device is how the list of devices calls the client of a request, such as
// "Firefox on Windows". It holds no text of the client's own.
func device(req *http.Request) string {
	agent := req.UserAgent()
	browser, platform := find(browsers, agent), find(platforms, agent)
	switch {
	case browser == "" && platform == "":
		return "Unknown device"
	case browser == "":
		return platform
	case platform == "":
		return browser
	}
	return browser + " on " + platform
}

func find(all []named, agent string) string {
	for _, n := range all {
		if strings.Contains(agent, n.text) {
			return n.name
		}
	}
	return ""
}
