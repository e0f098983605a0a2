package main

import (
	"slices"

	"github.com/sessiontoken/sessiontoken"
)

// State is what a session carries. The token holds the e-mail address encrypted.
type State struct {
	Name  string                      `json:"name"`
	Roles []string                    `json:"roles"`
	Theme string                      `json:"theme"`
	Mail  sessiontoken.Sealed[string] `json:"mail"`
}

// Is reports whether the user has a role.
func (s State) Is(role string) bool { return slices.Contains(s.Roles, role) }
