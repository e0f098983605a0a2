module github.com/sessiontoken/sessiontoken/cmd/sessiontoken

go 1.26.0

replace (
	github.com/sessiontoken/sessiontoken => ../../
	github.com/sessiontoken/sessiontoken/redisstore => ../../redisstore
	github.com/sessiontoken/sessiontoken/sqlstore => ../../sqlstore
)

require (
	github.com/sessiontoken/sessiontoken v0.1.0
	github.com/stretchr/testify v1.12.1
)
