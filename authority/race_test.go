//go:build race

package authority_test

// manyTenants is how many a test of many has; fewer where each step costs much.
const manyTenants = 100
