package main

import (
	"net/http"
	"strings"
)

// named is a part of a User-Agent and the name that users know.
type named struct{ text, name string }

// The first match counts: the later texts are also in the User-Agents of the
// earlier ones.
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

// device returns the label of a client in the list of devices, such as "Firefox
// on Windows". The label holds no text of the client.
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
