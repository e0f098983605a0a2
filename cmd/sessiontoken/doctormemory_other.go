//go:build !linux

package main

// inMemory reports whether a folder is in a file system in memory. It is known
// on Linux alone.
func inMemory(string) bool { return false }
