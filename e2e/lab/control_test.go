package lab

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"net"
	"testing"

	"github.com/lastgasp/lastgasp/e2e/guest/control"
)

// scriptedGuest is the guest's end of a control link, played by the test.
type scriptedGuest struct {
	t     *testing.T
	conn  net.Conn
	lines *bufio.Reader
}

func newScriptedGuest(t *testing.T) (*controlLink, *scriptedGuest) {
	here, there := net.Pipe()
	link := newControlLink(here)
	t.Cleanup(link.close)
	return link, &scriptedGuest{t: t, conn: there, lines: bufio.NewReader(there)}
}

func (g *scriptedGuest) receive() control.Request {
	line, err := g.lines.ReadBytes('\n')
	if err != nil {
		g.t.Fatal(err)
	}
	var r control.Request
	if err := json.Unmarshal(line, &r); err != nil {
		g.t.Fatal(err)
	}
	return r
}

func (g *scriptedGuest) say(raw string) {
	if _, err := g.conn.Write([]byte(raw + "\n")); err != nil {
		g.t.Fatal(err)
	}
}

func (g *scriptedGuest) reply(r control.Reply) {
	line, err := json.Marshal(r)
	if err != nil {
		g.t.Fatal(err)
	}
	g.say(string(line))
}

// ask calls in the background and returns where the outcome will be.
func ask(ctx context.Context, link *controlLink, path string) <-chan error {
	outcome := make(chan error, 1)
	go func() {
		reply, err := link.call(ctx, control.Request{Op: control.Read, Path: path})
		if err == nil && string(reply.Data) != "of "+path {
			err = errors.New("got the answer " + string(reply.Data) + " to " + path)
		}
		outcome <- err
	}()
	return outcome
}

func TestControlLinkMatchesAnswersToRequests(t *testing.T) {
	link, guest := newScriptedGuest(t)
	a, b := ask(t.Context(), link, "a"), ask(t.Context(), link, "b")
	first, second := guest.receive(), guest.receive()
	guest.reply(control.Reply{ID: second.ID, Data: []byte("of " + second.Path)})
	guest.reply(control.Reply{ID: 99, Data: []byte("to nobody")})
	guest.reply(control.Reply{ID: first.ID, Data: []byte("of " + first.Path)})
	for _, outcome := range []<-chan error{a, b} {
		if err := <-outcome; err != nil {
			t.Error(err)
		}
	}
}

func TestControlLinkReturnsTheGuestsError(t *testing.T) {
	link, guest := newScriptedGuest(t)
	outcome := ask(t.Context(), link, "a")
	guest.reply(control.Reply{ID: guest.receive().ID, Err: "open a: no such file or directory"})
	if err := <-outcome; err == nil || err.Error() != "open a: no such file or directory" {
		t.Errorf("got error %v", err)
	}
}

func TestControlLinkOverAReboot(t *testing.T) {
	link, guest := newScriptedGuest(t)
	guest.reply(control.Reply{BootID: "first"})
	if err := link.awaitBoot(t.Context()); err != nil {
		t.Fatal(err)
	}
	outcome := ask(t.Context(), link, "a")
	guest.receive()
	guest.say(`{"ID":1,"Da`) // cut off by the reset
	guest.reply(control.Reply{BootID: "second"})
	if err := <-outcome; !errors.Is(err, errRebooted) {
		t.Errorf("got error %v, want %v", err, errRebooted)
	}
	if err := link.awaitBoot(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := link.currentBoot(); got != "second" {
		t.Errorf("the boot is %q, want the second", got)
	}
}

func TestControlLinkTakesARestartedServerForNoBoot(t *testing.T) {
	link, guest := newScriptedGuest(t)
	guest.reply(control.Reply{BootID: "only"})
	if err := link.awaitBoot(t.Context()); err != nil {
		t.Fatal(err)
	}
	outcome := ask(t.Context(), link, "a")
	guest.receive()
	guest.reply(control.Reply{BootID: "only"})
	if err := <-outcome; !errors.Is(err, errRebooted) {
		t.Errorf("a request to the server before got error %v, want %v", err, errRebooted)
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if err := link.awaitBoot(ended); !errors.Is(err, context.Canceled) {
		t.Errorf("waiting for another boot returned %v, want %v", err, context.Canceled)
	}
}

func TestControlLinkEndsWithTheGuest(t *testing.T) {
	link, guest := newScriptedGuest(t)
	outcome := ask(t.Context(), link, "a")
	guest.receive()
	guest.conn.Close()
	if err := <-outcome; !errors.Is(err, errGone) {
		t.Errorf("got error %v, want %v", err, errGone)
	}
	if err := link.awaitBoot(t.Context()); !errors.Is(err, errGone) {
		t.Errorf("waiting for a boot returned %v, want %v", err, errGone)
	}
}
