//go:build tools

// Package tools pins the LiveKit server that the end-to-end tests run against.
package tools

import _ "github.com/livekit/livekit-server/cmd/server"
