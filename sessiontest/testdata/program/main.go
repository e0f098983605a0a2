// Command program is no test, and tries to use package sessiontest.
package main

import (
	"fmt"
	"net/http"

	"github.com/sessiontoken/sessiontoken"
	"github.com/sessiontoken/sessiontoken/internal/testhook"
	"github.com/sessiontoken/sessiontoken/sessionhttp"
	"github.com/sessiontoken/sessiontoken/sessiontest"
)

func main() {
	fmt.Println(testhook.Claims == nil)
	defer func() { fmt.Println(recover()) }()
	sessiontest.With(new(sessionhttp.Sessions[string]), new(http.Request), sessiontoken.Claims[string]{})
}
