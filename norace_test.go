//go:build !race

package sessiontoken_test

const raced = false
