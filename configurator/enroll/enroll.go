package enroll

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/lastgasp/lastgasp/configurator/ec2"
)

// Enroller keeps the pin of this boot on the node's own Node.
type Enroller struct {
	// Kubeconfigs returns the files to try, in this order. It is called for every new connection.
	Kubeconfigs func() ([]string, error)
	// Pin returns the pin of this boot, zero while there is no secret. It is called every localEvery.
	Pin func() (Pin, error)
	// Metadata returns the client of the instance metadata service, for the token of an EKS kubeconfig.
	Metadata  func() *ec2.Client
	StateFile string
	Version   string // for the API server's log
	Log       *slog.Logger

	dial  func(ctx context.Context, network, addr string) (net.Conn, error) // nil outside of tests
	state State
}

const (
	localEvery = 5 * time.Second // how often this machine's files are read
	watchFor   = 5 * time.Minute // duration of a watch, up to twice that, as in client-go's informers
	minWatch   = 5 * time.Second // a watch that ends sooner has failed
)

// These mark errors and add no text to them.
var (
	errWaits = errors.New("") // something local is missing: trying again costs the API server nothing
	errLost  = errors.New("") // the watch broke, as it does for all nodes at once when an API server restarts
)

// Run enrols until ctx ends: it waits for a kubeconfig and a Node, and writes the pin whenever the Node lacks it. It returns no
// error because it never gives up. The state file shows how far it is.
func (e *Enroller) Run(ctx context.Context) {
	if s, err := ReadState(e.StateFile); err == nil && s != nil {
		e.state = *s // from an earlier process: what that has written is still on the Node
	}
	var p pace
	for {
		began := time.Now()
		err := e.session(ctx)
		if ctx.Err() != nil {
			return
		}
		e.note(func(s *State) { s.Why = oneLine(err) })
		wait := localEvery
		if !errors.Is(err, errWaits) {
			wait = p.next(time.Since(began), err, rand.Float64())
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(wait):
		}
	}
}

// Once enrols now, or returns why it cannot. It writes only success to the state file, which a running watch may own.
func (e *Enroller) Once(ctx context.Context) (State, error) {
	quiet := *e
	quiet.StateFile = ""
	s, err := quiet.connect(ctx)
	if err != nil {
		return State{}, err
	}
	defer s.client.close()
	if s.node, _, err = s.client.get(ctx, s.name); err != nil {
		return State{}, err
	}
	if err := s.reconcile(ctx); err != nil {
		return quiet.state, err
	}
	return quiet.state, quiet.state.write(e.StateFile)
}

// session enrols over one connection until an error ends it, and returns that error.
func (e *Enroller) session(ctx context.Context) error {
	s, err := e.connect(ctx)
	if err != nil {
		return err
	}
	defer s.client.close()
	node, version, err := s.client.get(ctx, s.name)
	if err != nil {
		return err
	}
	s.node = node
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	events, failed := s.watch(ctx, version)
	tick := time.NewTicker(localEvery)
	defer tick.Stop()
	for {
		if err := s.reconcile(ctx); err != nil && !errors.Is(err, errWaits) {
			return err
		}
		select {
		case <-tick.C: // the secret may have changed
		case event := <-events:
			s.observe(event)
		case err := <-failed:
			return err
		}
	}
}

// session is one connection to the API server, and the Node as last seen there.
type session struct {
	e      *Enroller
	client *client
	file   string // the kubeconfig
	name   string // of the Node
	node   *node  // nil if there is none

	// written is the last pin of this session: its object, and the version after the write. behind means that the watch has not
	// shown that version yet, so its events are older than node.
	written struct {
		uid, version string
		pin          Pin
	}
	behind bool
}

// connect opens the first kubeconfig that belongs to a node.
func (e *Enroller) connect(ctx context.Context) (*session, error) {
	files, err := e.Kubeconfigs()
	if err != nil {
		return nil, err
	}
	var errs []error
	for _, file := range files {
		if _, err := os.Stat(file); errors.Is(err, fs.ErrNotExist) {
			continue
		}
		s, err := e.open(ctx, file)
		if err == nil {
			return s, nil
		}
		errs = append(errs, fmt.Errorf("%s: %w", file, err))
	}
	if len(errs) == 0 {
		return nil, fmt.Errorf("this machine is not a Kubernetes node yet: %s does not exist%w", strings.Join(files, " or "), errWaits)
	}
	return nil, errors.Join(errs...)
}

func (e *Enroller) open(ctx context.Context, file string) (*session, error) {
	a, err := readKubeconfig(file)
	if err != nil {
		return nil, err
	}
	c, err := newClient(a, "lastgasp-configurator/"+e.Version, e.dial)
	if err != nil {
		return nil, err
	}
	if a.eks != nil {
		credentials := ec2.Credentials(e.Metadata)
		c.eks = func(ctx context.Context) (string, error) { return a.eks.token(ctx, e.Metadata, credentials) }
	}
	name, err := c.whoAmI(ctx)
	if err != nil {
		c.close()
		return nil, err
	}
	return &session{e: e, client: c, file: file, name: name}, nil
}

// watch sends events until ctx ends or the watch fails. It starts again when the server ends it without an error.
func (s *session) watch(ctx context.Context, version string) (<-chan event, <-chan error) {
	events, failed := make(chan event), make(chan error, 1)
	go func() {
		for {
			began := time.Now()
			err := s.client.watch(ctx, s.name, version, watchFor+rand.N(watchFor), func(e event) {
				version = e.version
				select {
				case events <- e:
				case <-ctx.Done():
				}
			})
			if err == nil && time.Since(began) < minWatch {
				err = fmt.Errorf("watch Node %s: the server ended it at once", s.name)
			}
			if err == nil {
				err = ctx.Err()
			}
			if err != nil {
				failed <- fmt.Errorf("%w%w", err, errLost)
				return
			}
		}
	}()
	return events, failed
}

func (s *session) observe(e event) {
	if s.behind && e.node != nil && e.node.Metadata.UID == s.written.uid && e.version != s.written.version {
		return
	}
	if !e.marker {
		s.behind, s.node = false, e.node
	}
}

// reconcile pins the Node if it exists, reports this boot and lacks the pin. It returns errWaits if it is too early for that.
func (s *session) reconcile(ctx context.Context) error {
	pin, err := s.e.Pin()
	if err != nil {
		return err
	}
	if pin == (Pin{}) {
		return s.note(pin, "this boot has no secret yet; lastgasp-configurator apply makes it")
	}
	is := judge(s.node, pin)
	if is != unpinned {
		return s.note(pin, is)
	}
	if w := s.written; w.uid == s.node.Metadata.UID && w.pin == pin {
		_ = s.note(pin, is)
		return fmt.Errorf("something else removes or replaces the pin of Node %s; see who writes annotation %s", s.name, PinKey)
	}
	_ = s.note(pin, is)
	after, err := s.client.pin(ctx, s.name, s.node, pin)
	if err != nil {
		return err
	}
	s.written.uid, s.written.version, s.written.pin = after.Metadata.UID, after.Metadata.ResourceVersion, pin
	s.node, s.behind = after, true
	if is = judge(after, pin); is == unpinned {
		return fmt.Errorf("the API server accepted the pin of Node %s but did not store it; see its admission webhooks", s.name)
	}
	return s.note(pin, is)
}

// note records the Node's standing in the state. It returns errWaits unless that is pinned.
func (s *session) note(pin Pin, is standing) error {
	s.e.note(func(state *State) {
		*state = State{Enrolled: is == pinned, Claimed: claimed(s.node, pin), Node: s.name, Kubeconfig: s.file, Pin: pin.String(), Since: state.Since}
		if is != pinned {
			state.Why = string(is)
		}
	})
	if is != pinned {
		return fmt.Errorf("%s%w", is, errWaits)
	}
	return nil
}

// note changes the state, and saves and logs it if that made a difference.
func (e *Enroller) note(change func(*State)) {
	next := e.state
	change(&next)
	if next == e.state {
		return
	}
	was := e.state
	next.Since = time.Now()
	e.state = next
	if e.StateFile == "" {
		return
	}
	if err := next.write(e.StateFile); err != nil {
		e.Log.Warn("the state of enrolment is not saved, so status does not show it", "err", err)
	}
	switch {
	case next.Enrolled && !was.Enrolled:
		e.Log.Info("enrolled", "node", next.Node, "kubeconfig", next.Kubeconfig)
	case next.Why != "" && next.Why != was.Why && next.Enrolled:
		e.Log.Warn("this machine's Node cannot be watched", "node", next.Node, "why", next.Why)
	case next.Why != "" && next.Why != was.Why:
		e.Log.Info("not enrolled", "node", next.Node, "claimed", next.Claimed, "why", next.Why)
	}
}

// pace spreads attempts: each failure makes them rarer.
type pace struct{ wait time.Duration }

const (
	firstWait   = 2 * time.Second
	lostWait    = 30 * time.Second // the pin is there, so there is no hurry
	longestWait = time.Minute
	refusedWait = 10 * time.Minute // somebody has to fix something first
)

// next returns how long to wait after a session that lasted this long and ended with err. chance is a random number in [0,1).
func (p *pace) next(lasted time.Duration, err error, chance float64) time.Duration {
	first, longest := firstWait, longestWait
	switch {
	case refused(err):
		longest = refusedWait
	case errors.Is(err, errLost):
		first = lostWait
	}
	if p.wait == 0 || lasted >= longestWait {
		p.wait = first
	} else {
		p.wait = min(2*p.wait, longest)
	}
	return p.wait/2 + time.Duration(chance*float64(p.wait/2))
}

func refused(err error) bool {
	var answer *apiError
	if !errors.As(err, &answer) {
		return false
	}
	switch answer.code {
	case http.StatusUnauthorized, http.StatusForbidden, http.StatusNotFound, http.StatusUnprocessableEntity:
		return true
	}
	return false
}

func oneLine(err error) string { return printable(strings.ReplaceAll(err.Error(), "\n", "; ")) }

// Cordon marks the node's own Node unschedulable, with the kubelet's credentials, and returns its name. NodeRestriction lets a
// kubelet do that; it may not taint its Node.
func (e *Enroller) Cordon(ctx context.Context) (string, error) {
	s, err := e.connect(ctx)
	if err != nil {
		return "", fmt.Errorf("cordon this machine's Node: %w", err)
	}
	defer s.client.close()
	n, _, err := s.client.get(ctx, s.name)
	if err == nil && n == nil {
		err = errors.New(string(absent))
	}
	if err == nil {
		err = s.client.cordon(ctx, s.name, n)
	}
	if err != nil {
		return "", fmt.Errorf("cordon Node %s: %w; do it with kubectl cordon %s, and leave --cordon out", s.name, err, s.name)
	}
	return s.name, nil
}
