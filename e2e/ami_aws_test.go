//go:build e2e

package e2e

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ssm"
	"github.com/aws/aws-sdk-go-v2/service/ssm/types"

	"github.com/lastgasp/lastgasp/e2e/cloud"
	"github.com/lastgasp/lastgasp/e2e/lab"
	"github.com/lastgasp/lastgasp/e2e/story"
)

// Where the instances are.
const (
	region = "eu-west-1"
	zone   = "eu-west-1b"
	zoneID = "euw1-az1"
)

// parameters is SSM in the nodes' router, with the one parameter that user-data names.
type parameters struct {
	world *testing.T // whose end is its end
	ns    *lab.NS
	moto  *cloud.Moto
}

func startParameters(t *testing.T, n *lab.Net) *parameters {
	t.Helper()
	p := &parameters{world: t, ns: n.Router}
	p.start(t)
	return p
}

// start starts SSM, empty.
func (p *parameters) start(t *testing.T) {
	t.Helper()
	moto, err := cloud.StartMoto(t.Context(), p.world, p.ns, netip.AddrPortFrom(lab.NodeGateway.Addr(), 5555))
	if err != nil {
		t.Fatal(err)
	}
	p.moto = moto
}

// stop ends SSM. Its parameters are lost.
func (p *parameters) stop() { p.moto.Stop() }

func (p *parameters) put(t *testing.T, endpoint string) {
	t.Helper()
	putParameter(t, p.moto, "/lastgasp/"+zoneID+"/endpoint", endpoint)
}

// putParameter makes or replaces a parameter.
func putParameter(t *testing.T, moto *cloud.Moto, name, value string) {
	t.Helper()
	if _, err := moto.Parameters(region).PutParameter(t.Context(), &ssm.PutParameterInput{
		Name: &name, Value: &value, Type: types.ParameterTypeString, Overwrite: aws.Bool(true),
	}); err != nil {
		t.Fatal(err)
	}
}

// former is a listener without a cluster: the one that nodes send to before it moves.
type former struct {
	heard
	addr netip.AddrPort
}

func startFormer(t *testing.T, w *story.World) *former {
	t.Helper()
	dir := t.TempDir()
	f := &former{heard{filepath.Join(dir, "records.json")}, netip.AddrPortFrom(lab.APIServerAddr.Addr(), 6666)}
	config := filepath.Join(dir, "listener.yaml")
	text := fmt.Sprintf("listen: [%q]\nadmin: 127.0.0.1:9667\nrecords: %s\nship: {to: %s}\n", f.addr, dir, f.path)
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := w.Net.Listener.Command(t.Context(), w.Program("lastgasp-listener"), "run", "--config", config)
	if _, err := lab.StartDaemon(t, "the former listener", filepath.Join(dir, "listener.log"), cmd); err != nil {
		t.Fatal(err)
	}
	return f
}

// heard is the file to which a listener ships every record.
type heard struct{ path string }

type heardRecord struct {
	Source         netip.AddrPort
	Instance, Text string
}

func (h heard) read(t *testing.T) []heardRecord {
	t.Helper()
	f, err := os.Open(h.path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil // the listener has only just been started
	}
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var records []heardRecord
	for lines := json.NewDecoder(f); ; {
		var r heardRecord
		if lines.Decode(&r) != nil { // the end, or a line of which the rest is being written
			return records
		}
		records = append(records, r)
	}
}

// await waits until a record of that kind has been heard.
func (h heard) await(t *testing.T, what string, is func(heardRecord) bool) {
	t.Helper()
	again := time.NewTicker(200 * time.Millisecond)
	defer again.Stop()
	for range 1500 {
		for _, r := range h.read(t) {
			if is(r) {
				return
			}
		}
		<-again.C
	}
	t.Fatalf("%s did not arrive within five minutes", what)
}
