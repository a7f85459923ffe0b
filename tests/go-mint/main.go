// go-mint reads access tokens and answers what LiveKit's own verifier makes of them.
//
// In: one JSON object a line, {"key", "secret", "token"}. Out: one JSON object a line, in the same order, {"key",
// "identity", "grants"}, where grants is auth.ClaimGrants as it marshals itself, or {"error"}. A token is verified as
// livekit-server does it: ParseAPIToken, look up the key by its id, Verify.
package main

import (
	"bufio"
	"encoding/json"
	"log"
	"os"

	"github.com/livekit/protocol/auth"
)

const maxLine = 8 * 1024 * 1024 // bytes; a token may have 3 MiB

type question struct {
	Key    string `json:"key"`
	Secret string `json:"secret"`
	Token  string `json:"token"`
}

type answer struct {
	Key      string            `json:"key,omitempty"`
	Identity string            `json:"identity,omitempty"`
	Grants   *auth.ClaimGrants `json:"grants,omitempty"`
	Error    string            `json:"error,omitempty"`
}

func main() {
	lines := bufio.NewScanner(os.Stdin)
	lines.Buffer(nil, maxLine)
	out := json.NewEncoder(os.Stdout)
	for lines.Scan() {
		var asked question
		if err := json.Unmarshal(lines.Bytes(), &asked); err != nil {
			log.Fatal("a line isn't a question")
		}
		if err := out.Encode(verified(asked)); err != nil {
			log.Fatal(err)
		}
	}
	if err := lines.Err(); err != nil {
		log.Fatal(err)
	}
}

func verified(asked question) answer {
	token, err := auth.ParseAPIToken(asked.Token)
	if err != nil {
		return answer{Error: err.Error()}
	}
	if token.APIKey() != asked.Key {
		return answer{Error: "the token names another key: " + token.APIKey()}
	}
	grants, err := token.Verify(asked.Secret)
	if err != nil {
		return answer{Error: err.Error()}
	}
	return answer{Key: token.APIKey(), Identity: token.Identity(), Grants: grants}
}
