// SPDX-License-Identifier: GPL-2.0
/*
 * lastgasp: netconsole is heard in a panic that reboots, and the log names who caused it
 *
 * Since 7.0 netconsole is flushed only at the very end of vpanic(), behind the branches that start
 * a crash kernel or reboot (CON_NBCON_ATOMIC_UNSAFE). This module clears that flag when vpanic()
 * begins, so that each line is sent as it is printed, and sets it before the other CPUs stop:
 * a stopped CPU may hold the transmit lock, and a driver whose poll function takes it would hang.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/cgroup.h>
#include <linux/console.h>
#include <linux/delay.h>
#include <linux/kdebug.h>
#include <linux/kernfs.h>
#include <linux/kexec.h>
#include <linux/kprobes.h>
#include <linux/module.h>
#include <linux/panic.h>
#include <linux/panic_notifier.h>

#ifdef KERNFS_PARENT_IS_RCU
#define node_parent(kn) rcu_dereference((kn)->__parent)
#define node_name(kn) rcu_dereference((kn)->name)
#else
#define node_parent(kn) READ_ONCE((kn)->parent)
#define node_name(kn) READ_ONCE((kn)->name)
#endif

static unsigned long path_in_use;
static char path[512];

/* kernfs_path_from_node() takes a lock, which another CPU may hold for good. */
static const char *current_cgroup(void)
{
	const struct kernfs_node *nodes[16], *kn = task_css_set(current)->dfl_cgrp->kn;
	int depth = 0, len = 0;

	for (; node_parent(kn) && depth < ARRAY_SIZE(nodes); kn = node_parent(kn))
		nodes[depth++] = kn;
	strscpy(path, "/", sizeof(path));
	while (depth > 0)
		len += scnprintf(path + len, sizeof(path) - len, "/%s", node_name(nodes[--depth]));
	return path;
}

static void log_culprit(const char *what)
{
	bool mine = !test_and_set_bit(0, &path_in_use);
	const char *ctx = in_nmi() ? "nmi" : in_hardirq() ? "irq" :
			  in_serving_softirq() ? "softirq" : "task";

	rcu_read_lock();
	pr_emerg("culprit: %s cpu=%d ctx=%s comm=%s pid=%d cgroup=%s\n", what,
		 raw_smp_processor_id(), ctx, current->comm, current->pid,
		 mine ? current_cgroup() : "");
	rcu_read_unlock();
	if (mine)
		clear_bit(0, &path_in_use);
}

static struct task_struct *oopsed; /* the last one: a panic that follows is the same story */

static int on_die(struct notifier_block *nb, unsigned long val, void *data)
{
	if (val == DIE_OOPS) {
		WRITE_ONCE(oopsed, current);
		log_culprit("oops");
	}
	return NOTIFY_DONE;
}

static struct notifier_block die_notifier = { .notifier_call = on_die };

static atomic_t phase; /* it only grows */
enum { ALIVE, PANICKING, STOPPING };

#ifdef NETCONSOLE_IS_NBCON
#define PANIC_FUNCTION "vpanic"

static bool unmutes = true;
module_param(unmutes, bool, 0444);
MODULE_PARM_DESC(unmutes, "this module makes netconsole speak in a panic that reboots (read only)");

/* An immediate reset would lose the frames that are still in the network card's ring. */
#define DRAIN_MS 100

static struct console *muted[2]; /* netcon and netcon_ext, if they have the flag */

/* console_list_lock is a mutex. Nobody else changes flags in a panic. */
static void unmute(void)
{
	int n = 0, cookie = console_srcu_read_lock();
	struct console *con;

	for_each_console_srcu(con) {
		short flags = console_srcu_read_flags(con);

		if (n < ARRAY_SIZE(muted) && !strncmp(con->name, "netcon", 6) &&
		    flags & CON_NBCON_ATOMIC_UNSAFE) {
			muted[n++] = con;
			WRITE_ONCE(con->flags, flags & ~CON_NBCON_ATOMIC_UNSAFE);
		}
	}
	console_srcu_read_unlock(cookie);
}

static void mute(void)
{
	for (int n = 0; n < ARRAY_SIZE(muted) && muted[n]; n++)
		WRITE_ONCE(muted[n]->flags, muted[n]->flags | CON_NBCON_ATOMIC_UNSAFE);
}

static void mute_before_stop(void)
{
	if (atomic_cmpxchg(&phase, PANICKING, STOPPING) != PANICKING)
		return;
	mute();
	if (panic_timeout < 0)
		mdelay(DRAIN_MS);
}

/* A panic comes here before it stops the other CPUs. */
static int on_crash_kexec(struct kprobe *p, struct pt_regs *regs)
{
	/* If a crash kernel is loaded, an oops comes here and never calls panic(). Flush it. */
	if (atomic_read(&phase) == ALIVE && kexec_crash_loaded()) {
		unmute();
		pr_emerg("starting the crash kernel\n");
		mute();
	}
	mute_before_stop();
	return 0;
}

#define CRASH_FUNCTION "__crash_kexec"
static struct kprobe crash_probe = { .symbol_name = CRASH_FUNCTION, .pre_handler = on_crash_kexec };

/* With crash_kexec_post_notifiers, panic() stops the other CPUs first and then comes here. */
static int on_notifier(struct notifier_block *nb, unsigned long val, void *data)
{
	mute_before_stop();
	return NOTIFY_DONE;
}

static struct notifier_block panic_notifier = { .notifier_call = on_notifier, .priority = INT_MAX };
#else
#define PANIC_FUNCTION "panic"
static void unmute(void) {}
static void mute(void) {}
#endif /* NETCONSOLE_IS_NBCON */

static int on_panic(struct kprobe *p, struct pt_regs *regs)
{
	if (atomic_cmpxchg(&phase, ALIVE, PANICKING) != ALIVE)
		return 0; /* only the first CPU that panics goes on */
	unmute();
	if (atomic_read(&phase) == STOPPING) /* the first is another one, and was faster */
		mute();
	if (READ_ONCE(oopsed) != current)
		log_culprit("panic");
	return 0;
}

static struct kprobe panic_probe = { .symbol_name = PANIC_FUNCTION, .pre_handler = on_panic };

#ifdef NETCONSOLE_IS_NBCON
static struct kprobe *probes[] = { &panic_probe, &crash_probe };
#else
static struct kprobe *probes[] = { &panic_probe };
#endif

static int __init lastgasp_init(void)
{
	int err = register_kprobes(probes, ARRAY_SIZE(probes));

	if (err)
		return err;
#ifdef NETCONSOLE_IS_NBCON
	atomic_notifier_chain_register(&panic_notifier_list, &panic_notifier);
#endif
	register_die_notifier(&die_notifier);
	return 0;
}
module_init(lastgasp_init);

static void __exit lastgasp_exit(void)
{
	unregister_die_notifier(&die_notifier);
#ifdef NETCONSOLE_IS_NBCON
	atomic_notifier_chain_unregister(&panic_notifier_list, &panic_notifier);
#endif
	unregister_kprobes(probes, ARRAY_SIZE(probes));
}
module_exit(lastgasp_exit);

MODULE_DESCRIPTION("netconsole is heard in a panic that reboots, and the log names who caused it");
MODULE_LICENSE("GPL");
