//go:build race

package sessiontoken_test

// raced: the race detector makes signatures some ten times slower, so that
// exhaustive tests take a sample.
const raced = true
