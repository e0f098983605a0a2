//go:build !race

package authority_test

// manyTenants is how many a test of many has.
const manyTenants = 1000
