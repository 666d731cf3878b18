package configurator

import (
	"cmp"
	"context"
	"errors"
	"net/netip"
	"os"
	"slices"
	"sync"

	"github.com/lastgasp/lastgasp/configurator/configfs"
	"github.com/lastgasp/lastgasp/configurator/ec2"
	"github.com/lastgasp/lastgasp/configurator/endpoint"
	"github.com/lastgasp/lastgasp/configurator/machine"
	"github.com/lastgasp/lastgasp/configurator/nexthop"
)

// instanceOnce asks the metadata service when its answer is first needed, and only once. A pass can do without the answer,
// so it does not wait long.
func (c *Configurator) instanceOnce(ctx context.Context) func() (ec2.Instance, error) {
	return sync.OnceValues(func() (ec2.Instance, error) {
		ctx, cancel := context.WithTimeout(ctx, optionalTimeout)
		defer cancel()
		return c.Instance(ctx)
	})
}

// idOf returns the instance's id alone, or that of the last pass if the metadata service does not answer.
func idOf(instance func() (ec2.Instance, error), before *machine.State) func() (string, error) {
	return func() (string, error) {
		i, err := instance()
		if err != nil && before != nil && before.Identity.Instance != "" {
			return before.Identity.Instance, nil
		}
		return i.ID, err
	}
}

// zone returns this node's availability zone id. It asks only if the list has zones to compare it with.
func (c *Configurator) zone(list []endpoint.Endpoint, instance func() (ec2.Instance, error), before *machine.State) string {
	if !c.Root.OnEC2() || !slices.ContainsFunc(list, func(e endpoint.Endpoint) bool { return e.Zone != "" }) {
		return ""
	}
	i, err := instance()
	switch {
	case err == nil:
		return i.ZoneID
	case before != nil && before.Zone != "":
		return before.Zone
	}
	c.Log.Warn("zone unknown, choosing listeners regardless of it", "err", err)
	return ""
}

// query returns what the queries for all hops of a pass have in common. On EC2 the network drops packets whose source is not
// on the interface, so only addresses that the metadata service lists are allowed. If it does not answer, the sources of
// enabled targets are allowed; without any, every address is.
func (c *Configurator) query(instance func() (ec2.Instance, error), present []configfs.State) nexthop.Query {
	if !c.Root.OnEC2() {
		return nexthop.Query{}
	}
	i, err := instance()
	if err != nil {
		var q nexthop.Query
		for _, st := range present {
			if st.Enabled {
				q.Sources, q.Prefer = append(q.Sources, st.LocalIP), st.Device
			}
		}
		if len(q.Sources) == 0 {
			c.Log.Warn("interfaces unknown, sending from whatever address the route has", "err", err)
		}
		return q
	}
	allowed, prefer := sources(i.Interfaces, c.Root.DeviceOf)
	return nexthop.Query{Sources: allowed, Prefer: prefer}
}

// place returns the values of the templates in parameter names. As in every SDK, AWS_REGION comes before the instance's own region.
func (c *Configurator) place(ctx context.Context) (endpoint.Place, error) {
	p := endpoint.Place{Region: os.Getenv("AWS_REGION"), Cluster: c.Config.Cluster}
	if !c.Root.OnEC2() {
		if p.Region == "" {
			return p, errors.New("the region is unknown, this is not an EC2 instance; set AWS_REGION")
		}
		return p, nil
	}
	i, err := c.Instance(ctx)
	if err != nil {
		return p, err
	}
	p.Region, p.ZoneID = cmp.Or(p.Region, i.Region), i.ZoneID
	return p, nil
}

func (c *Configurator) zoneOf(ctx context.Context) (name, id string, err error) {
	if !c.Root.OnEC2() {
		return "", "", errors.New("this is not an EC2 instance")
	}
	i, err := c.instanceOnce(ctx)()
	return i.ZoneName, i.ZoneID, err
}

// sources returns the source addresses a datagram may have, best first, and the device to prefer. A VPC drops packets whose
// source is not on the interface, and Kubernetes knows the node by the primary interface's first address.
func sources(interfaces []ec2.Interface, deviceOf func(mac string) string) (allowed []netip.Addr, prefer string) {
	for _, i := range interfaces {
		if i.Primary {
			allowed, prefer = slices.Concat(i.Addrs, allowed), deviceOf(i.MAC.String())
		} else {
			allowed = append(allowed, i.Addrs...)
		}
	}
	return allowed, prefer
}
