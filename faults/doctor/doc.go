// Package doctor holds the tests of the command's doctor against real engines.
package doctor
