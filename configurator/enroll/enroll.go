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
	// Kubeconfigs are the files to try, in this order. They are asked for whenever a connection is made anew.
	Kubeconfigs func() ([]string, error)
	// Pin is that of this boot, zero while there is no secret. It is asked for every two seconds.
	Pin func() (Pin, error)
	// Metadata is the instance's, for the token of an EKS kubeconfig.
	Metadata  func() *ec2.Client
	StateFile string
	Version   string // for the API server's log
	Log       *slog.Logger

	dial  func(ctx context.Context, network, addr string) (net.Conn, error) // nil outside of tests
	state State
}

const (
	localEvery = 5 * time.Second // files of this machine are looked at
	watchFor   = 5 * time.Minute // to twice that, as client-go's informers do
	minWatch   = 5 * time.Second // a watch that ends sooner has failed
)

// These mark errors and add no text to them.
var (
	errWaits = errors.New("") // this machine does not have yet what it takes: looking again costs nobody anything
	errLost  = errors.New("") // the watch broke off, as it does for all nodes at once when an API server is restarted
)

// Run enrols, and goes on until ctx ends: while there is no kubeconfig or no Node it waits for them, and when the Node
// lacks the pin it writes it. It returns nothing, because it never gives up; how it stands is in the state file.
func (e *Enroller) Run(ctx context.Context) {
	if s, err := ReadState(e.StateFile); err == nil && s != nil {
		e.state = *s // of a former process: what it has written is still on the Node
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

// Once enrols now, or says why it cannot. Only success goes into the state file, which may be that of another process
// that runs.
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

// session enrols over one client, and returns the error that ends it.
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
		case <-tick.C: // there may be another secret
		case event := <-events:
			s.observe(event)
		case err := <-failed:
			return err
		}
	}
}

// session is one connection to the API server, and the Node as it was last seen there.
type session struct {
	e      *Enroller
	client *client
	file   string // the kubeconfig
	name   string // of the Node
	node   *node  // nil if there is none

	// written is what was pinned last in this session, to which object, and at which version that left it. Until the
	// watch has shown that version, its events are older than what is known here.
	written struct {
		uid, version string
		pin          Pin
	}
	behind bool
}

// connect finds the kubeconfig that belongs to a node.
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
		return nil, fmt.Errorf("this machine is no node of Kubernetes yet: %s does not exist%w", strings.Join(files, " or "), errWaits)
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

// watch sends events until ctx ends or the watch fails. A watch that the server ends in good order goes on.
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

// observe takes over what the watch has shown.
func (s *session) observe(e event) {
	if s.behind && e.node != nil && e.node.Metadata.UID == s.written.uid && e.version != s.written.version {
		return
	}
	if !e.marker {
		s.behind, s.node = false, e.node
	}
}

// reconcile pins the Node if it is there, reports this boot and does not carry the pin. It returns errWaits if there is
// nothing to be done yet.
func (s *session) reconcile(ctx context.Context) error {
	pin, err := s.e.Pin()
	if err != nil {
		return err
	}
	if pin == (Pin{}) {
		return s.note(pin, "this boot has no secret yet, lastgasp-configurator apply makes it")
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
		return fmt.Errorf("the API server took the pin of Node %s but does not keep it; see its admission webhooks", s.name)
	}
	return s.note(pin, is)
}

// note keeps how the Node stands to the pin. It returns errWaits for everything but pinned.
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

// note changes the state, and writes it down and logs it if it is another then.
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
		e.Log.Warn("status will not know how enrolment stands", "err", err)
	}
	switch {
	case next.Enrolled && !was.Enrolled:
		e.Log.Info("enrolled", "node", next.Node, "kubeconfig", next.Kubeconfig)
	case next.Why != "" && next.Why != was.Why && next.Enrolled:
		e.Log.Warn("the own Node cannot be watched", "node", next.Node, "why", next.Why)
	case next.Why != "" && next.Why != was.Why:
		e.Log.Info("not enrolled", "node", next.Node, "claimed", next.Claimed, "why", next.Why)
	}
}

// pace spreads attempts: the longer it has not worked, the rarer.
type pace struct{ wait time.Duration }

const (
	firstWait   = 2 * time.Second
	lostWait    = 30 * time.Second // the pin is there, so there is no hurry
	longestWait = time.Minute
	refusedWait = 10 * time.Minute // for what somebody has to mend first
)

// next is how long to wait after a session that lasted for so long and ended with err; chance is a random number from 0
// to 1.
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

// refused reports whether the API server has answered, and said no.
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
