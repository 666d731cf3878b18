package kube

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

func TestAttachmentsShareLists(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		lists := 0
		a := attachments{list: func(context.Context) (map[string]int, error) {
			lists++
			answer := map[string]int{"n": lists} // as it is when the list begins
			time.Sleep(time.Second)
			return answer, nil
		}}
		got := make(chan int, 100)
		ask := func() {
			counts, err := a.get(t.Context())
			if err != nil {
				t.Error(err)
			}
			got <- counts["n"]
		}
		go ask()
		synctest.Wait()
		for range 99 { // while the first list is under way
			go ask()
		}
		synctest.Wait()
		time.Sleep(5 * time.Second)
		synctest.Wait()
		close(got)
		answers := map[int]int{}
		for n := range got {
			answers[n]++
		}
		if answers[1] != 1 || answers[2] != 99 || lists != 2 {
			t.Errorf("%d lists, answers %v; want one for the first asker and one for all that came later", lists, answers)
		}
		if counts, err := a.get(t.Context()); err != nil || counts["n"] != 3 {
			t.Errorf("asked later: %v, %v; want a list of its own", counts, err)
		}
	})
}

func TestAttachmentsAskerMayLeave(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		broken := errors.New("broken")
		a := attachments{list: func(context.Context) (map[string]int, error) {
			time.Sleep(time.Minute)
			return nil, broken
		}}
		impatient, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		stays := make(chan error, 1)
		go func() {
			synctest.Wait()
			_, err := a.get(t.Context())
			stays <- err
		}()
		if _, err := a.get(impatient); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("impatient asker: %v, want its own deadline", err)
		}
		if err := <-stays; !errors.Is(err, broken) {
			t.Errorf("patient asker: %v, want the list's error", err)
		}
	})
}
