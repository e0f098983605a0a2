// Package oidclogin signs users in with an OpenID provider and keeps the two
// sessions in step: the provider's logout ends ours on every replica, without
// a table of sessions.
package oidclogin
