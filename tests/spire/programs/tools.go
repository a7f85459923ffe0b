//go:build tools

// Package programs pins the SPIRE server and agent that the tests run; nothing of this repository imports them.
package programs

import (
	_ "github.com/spiffe/spire/cmd/spire-agent"
	_ "github.com/spiffe/spire/cmd/spire-server"
)
