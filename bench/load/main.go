// Load sends one fixed gRPC request over and over: N connections, one call in flight on each, over mutual TLS 1.3.
//
// It connects and warms up first and prints {"ready":true}. Then, for each line on stdin that holds a number, it makes
// that many calls and prints one line of JSON: calls, errors, the first error, seconds, and the 50th and 99th
// percentile in milliseconds. This lets its driver read the server's CPU time just before and just after the calls,
// without the handshakes. It exits at the end of stdin.
package main

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
)

const service = "/livekit_auth.v1.AuthService/"

// bytesCodec passes messages through unchanged: no generated code is needed, and no time is spent on coding.
type bytesCodec struct{}

func (bytesCodec) Name() string { return "proto" }

func (bytesCodec) Marshal(v any) ([]byte, error) { return *v.(*[]byte), nil }

func (bytesCodec) Unmarshal(data []byte, v any) error {
	*v.(*[]byte) = slices.Clone(data)
	return nil
}

// load holds the method to call and the connections.
type load struct {
	method      string
	request     []byte
	connections []*grpc.ClientConn
	timeout     time.Duration
}

// result is the outcome of a run. The names give the units of times.
type result struct {
	Calls      int64   `json:"calls"`
	Errors     int64   `json:"errors"`
	FirstError string  `json:"first_error,omitempty"`
	Seconds    float64 `json:"seconds"`
	P50        float64 `json:"p50_ms"`
	P99        float64 `json:"p99_ms"`
}

// run makes exactly count calls, or fewer if the timeout ends it.
func (l load) run(count int64) result {
	ctx, cancel := context.WithTimeout(context.Background(), l.timeout)
	defer cancel()
	var left, failed atomic.Int64
	left.Store(count)
	var firstError atomic.Pointer[string]
	times := make([][]time.Duration, len(l.connections))
	var workers sync.WaitGroup
	started := time.Now()
	for i, connection := range l.connections {
		workers.Go(func() {
			for ctx.Err() == nil && left.Add(-1) >= 0 {
				began := time.Now()
				if err := l.call(ctx, connection); err != nil {
					failed.Add(1)
					text := err.Error()
					firstError.CompareAndSwap(nil, &text)
				}
				times[i] = append(times[i], time.Since(began))
			}
		})
	}
	workers.Wait()
	seconds := time.Since(started).Seconds()
	all := slices.Concat(times...)
	slices.Sort(all)
	r := result{Calls: int64(len(all)), Errors: failed.Load(), Seconds: seconds, P50: percentile(all, 50), P99: percentile(all, 99)}
	if text := firstError.Load(); text != nil {
		r.FirstError = *text
	}
	return r
}

func (l load) call(ctx context.Context, connection *grpc.ClientConn) error {
	var response []byte
	return connection.Invoke(ctx, l.method, &l.request, &response, grpc.ForceCodec(bytesCodec{}))
}

func percentile(sorted []time.Duration, percent int) float64 {
	if len(sorted) == 0 {
		return 0
	}
	return float64(sorted[(len(sorted)-1)*percent/100].Microseconds()) / 1000
}

func clientTLS(ca, certificate, key string) (credentials.TransportCredentials, error) {
	pair, err := tls.LoadX509KeyPair(certificate, key)
	if err != nil {
		return nil, err
	}
	pem, err := os.ReadFile(ca)
	if err != nil {
		return nil, err
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("%s holds no certificate", ca)
	}
	return credentials.NewTLS(&tls.Config{
		Certificates: []tls.Certificate{pair}, RootCAs: roots, MinVersion: tls.VersionTLS13,
	}), nil
}

func connect(address string, count int, creds credentials.TransportCredentials) ([]*grpc.ClientConn, error) {
	connections := make([]*grpc.ClientConn, count)
	for i := range connections {
		connection, err := grpc.NewClient("passthrough:///"+address, grpc.WithTransportCredentials(creds))
		if err != nil {
			return nil, err
		}
		connections[i] = connection
	}
	return connections, nil
}

func main() {
	if err := serve(); err != nil {
		fmt.Fprintln(os.Stderr, "load:", err)
		os.Exit(1)
	}
}

func serve() error {
	address := flag.String("address", "127.0.0.1:7443", "the server, HOST:PORT")
	ca := flag.String("ca", "ca.pem", "the CA of the server's certificate")
	certificate := flag.String("cert", "web.pem", "the client's certificate")
	key := flag.String("key", "web.key", "its key")
	method := flag.String("method", "IssueToken", "the method of "+service)
	request := flag.String("request", "", "the file with the serialised request")
	connections := flag.Int("connections", 64, "connections, each with one call in flight")
	warmup := flag.Int64("warmup", 1000, "calls before the first run, at least one per connection")
	timeout := flag.Duration("timeout", time.Minute, "the maximum duration of a run")
	flag.Parse()

	body, err := os.ReadFile(*request)
	if err != nil {
		return err
	}
	creds, err := clientTLS(*ca, *certificate, *key)
	if err != nil {
		return err
	}
	conns, err := connect(*address, *connections, creds)
	if err != nil {
		return err
	}
	l := load{method: service + *method, request: body, connections: conns, timeout: *timeout}
	if r := l.run(max(*warmup, int64(*connections))); r.Errors > 0 {
		return fmt.Errorf("%d of %d calls failed while warming up: %s", r.Errors, r.Calls, r.FirstError)
	}
	out := json.NewEncoder(os.Stdout)
	if err := out.Encode(map[string]bool{"ready": true}); err != nil {
		return err
	}
	for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
		count, err := strconv.ParseInt(strings.TrimSpace(lines.Text()), 10, 64)
		if err != nil {
			return err
		}
		if err := out.Encode(l.run(count)); err != nil {
			return err
		}
	}
	return nil
}
