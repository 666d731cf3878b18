// SPDX-License-Identifier: GPL-2.0 OR MIT
/*
 * lastgasp_crash harms a lab guest in one named way as soon as it is loaded:
 *
 *	insmod lastgasp_crash.ko way=null-deref
 *
 * The ways that a machine survives let it live, so that the listener's tests also see what is only sick.
 * Function names show up in call traces and thereby in fixtures: rename them together.
 */
#define pr_fmt(fmt) "lastgasp_crash: " fmt

#include <linux/delay.h>
#include <linux/err.h>
#include <linux/etherdevice.h>
#include <linux/irqflags.h>
#include <linux/kprobes.h>
#include <linux/kthread.h>
#include <linux/ktime.h>
#include <linux/module.h>
#include <linux/mutex.h>
#include <linux/netdevice.h>
#include <linux/platform_device.h>
#include <linux/poison.h>
#include <linux/preempt.h>
#include <linux/rcupdate.h>
#include <linux/sched.h>
#include <linux/slab.h>
#include <linux/timer.h>

static char *way = "";
module_param(way, charp, 0);
MODULE_PARM_DESC(way, "what to do, see ways[]");

static int seconds = 30;
module_param(seconds, int, 0);
MODULE_PARM_DESC(seconds, "how long the lockups last");

static int records = 120;
module_param(records, int, 0);
MODULE_PARM_DESC(records, "how many records the burst writes");

/* store goes through a pointer that the compiler knows nothing about, else it would warn or trap by itself. */
static noinline void store(unsigned long address)
{
	int *p = (int *)address;

	OPTIMIZER_HIDE_VAR(p);
	*p = 1;
}

static noinline void crash_null_deref(void) { store(0); }
static noinline void crash_err_ptr(void) { store((unsigned long)ERR_PTR(-ENOMEM)); }
static noinline void crash_gpf(void) { store((unsigned long)LIST_POISON1); }
static noinline void crash_bug(void) { BUG(); }
static noinline void crash_warn(void) { WARN(1, "lastgasp_crash: only a warning\n"); }

static noinline void crash_panic_multiline(void)
{
	panic("lastgasp_crash: first line\nsecond line with arg=%d", 42);
}

/* The kernel's stacks end in a guard page; 256 bytes a frame get there soon. */
static noinline int eat_stack(int depth)
{
	volatile char frame[256];

	frame[depth & 255] = depth;
	return depth > 1000000 ? 0 : eat_stack(depth + 1) + frame[depth & 255];
}

static noinline void crash_stack_overflow(void) { eat_stack(0); }

static struct net_device *eth0;
static bool stopping, locked;

static int hold_tx_lock(void *unused)
{
	local_bh_disable();
	while (!READ_ONCE(stopping))
		cpu_relax();
	__netif_tx_lock(netdev_get_tx_queue(eth0, 0), smp_processor_id());
	WRITE_ONCE(locked, true);
	for (;;)
		cpu_relax();
	return 0;
}

/* panic() comes here right before it stops the other CPUs. */
static int await_tx_lock(struct kprobe *p, struct pt_regs *regs)
{
	WRITE_ONCE(stopping, true);
	while (!READ_ONCE(locked))
		cpu_relax();
	return 0;
}

static struct kprobe stop_probe = { .symbol_name = "__crash_kexec", .pre_handler = await_tx_lock };

static noinline void crash_tx_lock(void)
{
	struct task_struct *thread;

	eth0 = dev_get_by_name(&init_net, "eth0");
	if (!eth0 || num_online_cpus() < 2 || register_kprobe(&stop_probe))
		return;
	thread = kthread_create(hold_tx_lock, NULL, "lastgasp_lock");
	if (IS_ERR(thread))
		return;
	kthread_bind(thread, num_online_cpus() - 1);
	set_cpus_allowed_ptr(current, cpumask_of(0));
	wake_up_process(thread);
	msleep(100);
	panic("lastgasp_crash: a CPU is stopped with the transmit lock");
}

static noinline void spin(void)
{
	ktime_t end = ktime_add_ms(ktime_get(), seconds * 1000L);

	while (ktime_before(ktime_get(), end))
		cpu_relax();
}

static noinline void crash_soft_lockup(void)
{
	preempt_disable();
	spin();
	preempt_enable();
}

static int spin_irqs_off(void *unused)
{
	local_irq_disable();
	mdelay(seconds * 1000L);
	local_irq_enable();
	return 0;
}

/*
 * An emulated CPU has no performance counter that could interrupt this: the other CPUs notice, as an RCU stall. Not on
 * CPU 0, which with nohz=off drives the clock that they notice by.
 */
static noinline void crash_irqs_off(void)
{
	struct task_struct *thread = kthread_create(spin_irqs_off, NULL, "lastgasp_spin");

	if (IS_ERR(thread))
		return;
	kthread_bind(thread, num_online_cpus() - 1);
	wake_up_process(thread);
	msleep(100);
	synchronize_rcu(); /* no stall without a grace period to wait for */
}

static noinline void crash_sched_atomic(void)
{
	preempt_disable();
	schedule_timeout_uninterruptible(1);
	preempt_enable();
}

static void oops_in_timer(struct timer_list *unused) { store(0); }
static DEFINE_TIMER(timer, oops_in_timer);

static noinline void crash_timer_oops(void) { mod_timer(&timer, jiffies + HZ / 10); }

static DEFINE_MUTEX(never_unlocked);

static int hang(void *unused)
{
	mutex_lock(&never_unlocked);
	mutex_lock(&never_unlocked);
	return 0;
}

static noinline void crash_hung_task(void) { kthread_run(hang, NULL, "lastgasp_hung"); }

static noinline void crash_burst(void)
{
	int i;

	for (i = 1; i <= records; i++)
		pr_emerg("record %d of %d\n", i, records);
	panic("lastgasp_crash: after a burst of %d records", records);
}

/* Tabs and backslashes take four bytes each in extended format, so that one record needs several datagrams. */
static noinline void crash_big_record(void)
{
	static char text[900];
	size_t i;

	for (i = 0; i < sizeof(text) - 1; i++)
		text[i] = i % 9 == 8 ? '\t' : i % 31 == 30 ? '\\' : 'a' + i % 26;
	pr_emerg("%s\n", text);
}

static noinline void crash_pr_cont(void)
{
	pr_emerg("one record");
	pr_cont(" in three");
	pr_cont(" pieces\n");
	pr_emerg("cut short by another");
	pr_emerg("line of its own\n");
}

static noinline void crash_dev_dict(void)
{
	struct platform_device *dev = platform_device_register_simple("lastgasp_crash", -1, NULL, 0);

	if (IS_ERR(dev))
		return;
	dev_emerg(&dev->dev, "a record with a dictionary\n");
	platform_device_unregister(dev);
}

static netdev_tx_t drop(struct sk_buff *skb, struct net_device *dev)
{
	dev_kfree_skb(skb);
	return NETDEV_TX_OK;
}

static const struct net_device_ops leaky_ops = { .ndo_start_xmit = drop };

static int unregister_leaky(void *dev)
{
	unregister_netdev(dev); /* never returns: somebody still holds dev */
	return 0;
}

static noinline void crash_netdev_leak(void)
{
	struct net_device *dev = alloc_netdev(0, "leaky%d", NET_NAME_ENUM, ether_setup);

	if (!dev)
		return;
	dev->netdev_ops = &leaky_ops;
	if (register_netdev(dev)) {
		free_netdev(dev);
		return;
	}
	dev_hold(dev);
	kthread_run(unregister_leaky, dev, "lastgasp_leak");
}

/*
 * Atomic allocations neither wait nor wake the OOM killer: they fail, and say so. The objects are so large that small
 * ones are left for those who report it.
 */
static noinline void crash_slab_exhaust(void)
{
	struct kmem_cache *cache = kmem_cache_create("lastgasp_victim", 1 << 20, 0, 0, NULL);
	void *object, *next, *last = NULL;

	if (!cache)
		return;
	while ((object = kmem_cache_alloc(cache, GFP_ATOMIC))) {
		*(void **)object = last;
		last = object;
	}
	for (object = last; object; object = next) {
		next = *(void **)object;
		kmem_cache_free(cache, object);
	}
	kmem_cache_destroy(cache);
}

static const struct {
	const char *name;
	void (*crash)(void);
} ways[] = {
	{ "null-deref", crash_null_deref },
	{ "err-ptr", crash_err_ptr },
	{ "gpf", crash_gpf },
	{ "bug", crash_bug },
	{ "stack-overflow", crash_stack_overflow },
	{ "oops-in-irq", crash_timer_oops },
	{ "panic-multiline", crash_panic_multiline },
	{ "burst", crash_burst },
	{ "tx-lock", crash_tx_lock },
	{ "softlockup", crash_soft_lockup },
	{ "irqs-off", crash_irqs_off },
	{ "hung-task", crash_hung_task },
	{ "sched-atomic", crash_sched_atomic },
	{ "warn", crash_warn },
	{ "big-record", crash_big_record },
	{ "pr-cont", crash_pr_cont },
	{ "dev-dict", crash_dev_dict },
	{ "netdev-leak", crash_netdev_leak },
	{ "slab-exhaust", crash_slab_exhaust },
};

static int __init lastgasp_crash_init(void)
{
	int i;

	for (i = 0; i < ARRAY_SIZE(ways); i++) {
		if (!strcmp(way, ways[i].name)) {
			ways[i].crash();
			return 0; /* stays loaded: timers and threads may still run its code */
		}
	}
	pr_err("no way \"%s\"\n", way);
	return -EINVAL;
}
module_init(lastgasp_crash_init);

MODULE_DESCRIPTION("Crashes a lab guest in one named way");
MODULE_LICENSE("Dual MIT/GPL");
