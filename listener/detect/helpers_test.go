package detect

import (
	"fmt"
	"strings"
	"testing"
)

// Each list is of functions that are passed over: the title names their caller.
func TestTitlesNameTheGuiltyFunction(t *testing.T) {
	const (
		warning = "WARNING: CPU: 1 PID: 9 at x.c:1 %[1]s+0x1/0x2\nRIP: 0010:%[1]s+0x1/0x2\nCall Trace:\n <TASK>\n guilty+0x1/0x2\n caller+0x1/0x2\n </TASK>\n"
		kasan   = "BUG: KASAN: slab-use-after-free in %[1]s+0x1/0x2\nCall Trace:\n <TASK>\n dump_stack_lvl+0x1/0x2\n print_report+0x1/0x2\n" +
			" kasan_report+0x1/0x2\n %[1]s+0x1/0x2\n guilty+0x1/0x2\n caller+0x1/0x2\n </TASK>\n"
		between = "WARNING: fs/x.c:1 at 0x0, CPU#1: java/9\nCall Trace:\n %[1]s+0x1/0x2\n guilty+0x1/0x2\n"
		fault   = "BUG: kernel NULL pointer dereference, address: 0000000000000008\nRIP: 0010:%[1]s+0x1/0x2\nCall Trace:\n guilty+0x1/0x2\n"
		bug     = "kernel BUG at mm/slub.c:379!\nRIP: 0010:%[1]s+0x1/0x2\nCall Trace:\n guilty+0x1/0x2\n"
	)
	for _, tt := range []struct {
		name      string
		functions string
		logs      []string
	}{
		{"allocation", `__alloc_pages __alloc_pages_noprof alloc_pages_mpol_noprof __folio_alloc_noprof __kmalloc __kmalloc_noprof
			__kmalloc_cache_noprof kmalloc_trace kmalloc_order kmem_cache_alloc kmem_cache_alloc_lru_noprof ___slab_alloc new_slab
			allocate_slab krealloc kvmalloc_node __vmalloc_node_range vzalloc pcpu_alloc __get_free_pages kzalloc_noprof page_pool_alloc_netmem page_pool_dev_alloc_pages
			folio_prealloc kmem_cache_prefill_sheaf refill_sheaf build_skb get_partial_node bio_alloc_bioset sg_alloc_table alloc_netdev_mqs usb_alloc_urb
			shmem_alloc_inode d_alloc alloc_empty_file gen_pool_alloc_algo_owner`, []string{warning, between, bug}},
		{"copying", `memcpy memcpy_erms __memmove memset_orig memcmp strlen strncpy strscpy strcmp kstrdup kmemdup_noprof _copy_to_user
			_copy_from_user _copy_from_iter copy_page_to_iter __copy_user_nocache
			rep_movs_alternative clear_page_erms __arch_copy_from_user __pi_memset copy_struct_from_user fault_in_readable do_csum csum_partial
			skip_spaces kstrtoull sscanf match_string bsearch seq_printf simple_read_from_buffer __pi_strlen __pi_clear_page copy_highpage folio_copy arch_spin_lock_wait wake_up_process`, []string{warning, kasan, fault}},
		{"ciphers, digests and compression", `aes_encrypt aesti_encrypt cipher_crypt_one crypto_shash_update crypto_sha3_finup sha256_transform_rorx sha1_update
			chacha_block_generic poly1305_update crypto_cbc_encrypt ZSTD_decompressBlock LZ4_decompress_safe zlib_inflate`, []string{warning, kasan, fault}},
		{"list and reference checks", `__list_add_valid_or_report __list_del_entry_valid __list_del_entry_valid_or_report refcount_warn_saturate`,
			[]string{warning, kasan, between, bug, fault}},
		{"lists, trees and counts", `list_del klist_next rb_erase __rb_insert_augmented xas_load radix_tree_lookup refcount_dec_and_test kref_put
			atomic_inc_not_zero _raw_spin_lock_irqsave mutex_lock_nested down_write native_queued_spin_lock_slowpath
			reiserfs_write_lock btrfs_tree_read_lock rtlock_slowlock_locked rt_spin_lock
			interval_tree_insert mas_walk mas_store_prealloc mtree_load sbitmap_get rcuref_put_slowpath lockref_get_not_dead inode_lock bit_spin_lock
			resilient_queued_spin_lock_slowpath`, []string{warning, kasan, fault}},
		{"debug objects", `debug_print_object debug_object_activate __debug_check_no_obj_freed debug_check_no_obj_freed
			debug_timer_activate debug_work_activate debug_rcu_head_queue timer_fixup_assert_init work_fixup_activate`, []string{warning, between}},
		{"locks' checks", `lock_acquire __lock_acquire lock_release register_lock_class mark_lock check_noncircular lock_is_held_type
			lock_contended debug_mutex_unlock __cant_sleep`, []string{warning, kasan, between, fault}},
		{"kernel objects", `kobject_put kobject_get kobject_add_internal device_del device_unregister put_device sysfs_remove_group sysfs_create_file_ns
			internal_create_group device_initialize class_register cdev_del platform_device_unregister driver_unregister kernfs_put of_node_put`, []string{warning, kasan}},
		{"proc", `proc_register proc_create_data proc_mkdir_data remove_proc_entry remove_proc_subtree proc_entry_rundown __register_sysctl_table
			drop_sysctl_table`, []string{warning}},
		{"interrupts, clocks and mappings", `free_irq request_threaded_irq enable_irq clk_core_disable regulator_put ioremap_prot iounmap dma_map_page_attrs
			dma_free_attrs`, []string{warning, fault}},
		{"what a driver does with its mappings", `check_unmap debug_dma_unmap_page check_sync`, []string{warning, between}},
		{"references", `put_pid put_net sock_put sk_free module_put dev_put css_put skb_unlink skb_dequeue skb_clone pskb_expand_head free_percpu mempool_free`, []string{warning, kasan, fault}},
		{"timers and work", `del_timer_sync mod_timer __mod_timer timer_is_static_object hrtimer_start_range_ns queue_work_on __flush_work
			cancel_work_sync __queue_delayed_work`, []string{warning, kasan}},
		{"the ways in, amd64", `asm_exc_page_fault exc_page_fault asm_sysvec_apic_timer_interrupt sysvec_apic_timer_interrupt common_interrupt asm_common_interrupt
			entry_SYSCALL_64_after_hwframe do_syscall_64 x64_sys_call ret_from_fork_asm invalid_op do_error_trap report_bug __warn
			asm_fred_entrypoint_kernel fred_entry_from_kernel xen_pv_evtchn_do_upcall do_machine_check srso_alias_return_thunk`, []string{between}},
		{"the ways in, arm64", `el1h_64_sync el1h_64_sync_handler el1_abort do_mem_abort do_translation_fault el1h_64_irq el1_interrupt gic_handle_irq
			call_on_irq_stack el0t_64_sync el0_svc invoke_syscall brk_handler bug_handler
			bug_brk_handler el1_gcs ret_to_user arm_pmu_handle_irq __sdei_handler`, []string{between}},
		{"the ways in, arm", `__dabt_svc __und_svc_fault __irq_svc __fiq_svc vector_swi do_DataAbort do_alignment call_with_stack`, []string{between}},
		{"the ways in, other architectures", `do_irq handle_riscv_irq __do_pgm_check pgm_check_handler do_dat_exception __do_syscall system_call handle_syscall
			do_handle_IPI ipi_handler call_on_stack common_exception`, []string{between}},
		{"the trampolines of probes, patches and BPF", `__kretprobe_trampoline_handler arch_rethook_trampoline_callback kprobe_ftrace_handler optimized_callback
			klp_ftrace_handler bpf_trampoline_6442536468_1 __bpf_prog_exit_recur bpf_dispatcher_xdp_func`, []string{between, warning}},
		{"the ways out", `do_exit do_group_exit get_signal make_task_dead exit_to_user_mode_loop arch_do_signal_or_restart`, []string{between}},
		{"Rust", `rust_helper_BUG rust_begin_unwind _RNvCscSpY9Juk0HT_7___rustc17rust_begin_unwind _RNvNtCs9jEwPDbx20M_4core9panicking9panic_fmt
			_RNvNtNtCs9jEwPDbx20M_4core9panicking11panic_const24panic_const_sub_overflow _RNvNtCs1_4core6option13unwrap_failed
			_RNvNtCs1_6kernel5print11call_printk rust_build_error`, []string{between, bug}},
		{"Rust's kernel library", `_RNvNtCs1_6kernel4list4List _RNvNtNtCs1_6kernel4sync4lock4lock __rust_realloc`, []string{warning, kasan, fault}},
	} {
		for f := range strings.FieldsSeq(tt.functions) {
			for _, log := range tt.logs {
				title := completeIncident(t, fmt.Sprintf(log, f)).Title
				if !strings.HasSuffix(title, " in guilty") {
					t.Errorf("%s: %s is blamed: %s", tt.name, f, title)
				}
			}
		}
	}
}

// A fault inside of a function that looks after memory of its own is that function's: its memory is broken, not what it was
// given.
func TestAFaultInsideAHelperIsTheHelpers(t *testing.T) {
	for _, f := range []string{"__check_heap_object", "__kmalloc_cache_node_noprof", "kmem_cache_alloc", "___slab_alloc", "get_page_from_freelist", "do_exit", "unwind_next_frame"} {
		log := "divide error: 0000 [#1] SMP NOPTI\nRIP: 0010:" + f + "+0x39/0xd0\nCall Trace:\n __check_object_size+0x146/0x160\n copy_strings.isra.0+0x17b/0x370\n"
		if got, want := completeIncident(t, log).Title, "divide error in "+f; got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
	// So is what an allocation calls, or the memory that a sanitizer keeps back.
	for _, f := range []string{"kmem_cache_alloc", "qlist_free_all"} {
		log := "general protection fault: 0000 [#1] SMP\nRIP: 0010:__memmove+0x39/0xd0\nCall Trace:\n " + f + "+0x1/0x2\n bystander+0x17b/0x370\n"
		if got, want := completeIncident(t, log).Title, "general protection fault (__memmove) in "+f; got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
	// A helper that works on what it is given is named beside the one that gave it.
	log := "divide error: 0000 [#1] SMP NOPTI\nRIP: 0010:memcpy_erms+0x39/0xd0\nCall Trace:\n guilty+0x17b/0x370\n"
	if got, want := completeIncident(t, log).Title, "divide error (memcpy_erms) in guilty"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
}

// Functions that only sound like helpers are named.
func TestFunctionsThatAreNoHelpers(t *testing.T) {
	for f := range strings.FieldsSeq(`strp_check_rcv stream_open wake_up_new_task timer_settime_old workqueue_init_early folio_mark_accessed
		tcp_v4_rcv ext4_alloc_inode_table skb_segment dev_queue_xmit queue_io_start listen_hash diewell panicked_about sysrq_handle_crash
		deadbeef consoled up_the_hill downgrade_write copy_process memory_failure warned_before listing xattr_set bpf_prog_run dbf_event
		ctr_ring_init des_probe sort_memcg mast_find check_sync_rss rtnl_newlink gcm_device_add zlib_compress_pages inode_lockless_init handle_edge_irq
		csum_exist_in_range csum_dirty_buffer clk_alpha_pll_enable clk_rcg2_shared_disable request_gpio_irq copy_page_range kprobe_optimizer bpf_prog_load system_caller dma_fence_chain_walk dma_free_channel check_sync_rate`) {
		log := "WARNING: CPU: 1 PID: 9 at x.c:1 " + f + "+0x1/0x2\nRIP: 0010:" + f + "+0x1/0x2\nCall Trace:\n caller+0x1/0x2\n"
		if title := completeIncident(t, log).Title; title != "WARNING in "+f {
			t.Errorf("%s is not named: %s", f, title)
		}
	}
}

func TestPlacesOfEveryArchitecture(t *testing.T) {
	const head = "BUG: unable to handle kernel paging request at ffff970000000848\n"
	for _, tt := range []struct{ name, log, want string }{
		{"amd64", head + "RIP: 0010:guilty+0x1/0x2 [mod]\n", "kernel page fault in guilty"},
		{"amd64 before 4.10", head + "IP: [<ffffffff811b6c89>] guilty+0x1/0x2\n", "kernel page fault in guilty"},
		{"Xen before 4.10", head + "RIP: e030:[<ffffffff811b6c89>]  [<ffffffff811b6c89>] guilty+0x1/0x2 [mod]\n", "kernel page fault in guilty"},
		{"the summary before 4.10", head + "Call Trace:\n [<ffffffff8107b1c9>] caller+0x1/0x2\n---[ end trace 1 ]---\nRIP  [<ffffffff811b6c89>] guilty+0x1/0x2\n", "kernel page fault in guilty"},
		{"i386", head + "EIP: guilty+0x1/0x2\n", "kernel page fault in guilty"},
		{"i386 before 4.10", head + "EIP is at guilty+0x1/0x2\n", "kernel page fault in guilty"},
		{"a null jump before 4.10", head + "IP: [<          (null)>]           (null)\nCall Trace:\n [<ffffffff8107b1c9>] caller+0x1/0x2\n", "kernel page fault on a bad jump from caller"},
		{"a frame before 4.10", head + "Call Trace:\n [<ffffffff8107b1c9>] ? guess+0x1/0x2\n [<ffffffff8107b1c9>] guilty+0x1/0x2 [mod]\n", "kernel page fault in guilty"},
		{"a kernel that guesses all frames", head + "Call Trace:\n [<ffffffff8107b1c9>] ? _raw_spin_lock+0x1/0x2\n [<ffffffff8107b1c9>] ? guilty+0x1/0x2 [mod]\n", "kernel page fault in guilty"},
		{"arm64", head + "pc : guilty+0x1/0x2\nlr : caller+0x1/0x2\n", "kernel page fault in guilty"},
		{"arm64 before 4.15", head + "PC is at guilty+0x1/0x2\nLR is at caller+0x1/0x2\n", "kernel page fault in guilty"},
		{"arm", head + "PC is at guilty+0x1/0x2\nLR is at 0x0\npc : [<80b10c70>]    lr : [<00000000>]    psr: 200d0013\n", "kernel page fault in guilty"},
		{"arm's frames", head + "Backtrace: \n[<816d8778>] (show_stack) from [<816e1128>] (dump_stack_lvl+0x48/0x54)\n[<816e10e0>] (dump_stack_lvl) from [<816e114c>] (guilty+0x18/0x1c)\n", "kernel page fault in guilty"},
		{"arm's frames since 5.19", head + "Call trace: \n unwind_backtrace from show_stack+0x10/0x14\n show_stack from guilty+0x40/0x4c\n guilty from caller+0x1/0x2\n", "kernel page fault in guilty"},
		{"PowerPC", head + "NIP:  c00000000022d79c LR: c00000000022d784 CTR: 0000000000000000\nNIP [c00000000022d79c] guilty+0x1ac/0x5f0\nLR [c00000000022d784] caller+0x1/0x2\n", "kernel page fault in guilty"},
		{"PowerPC's frames", head + "Call Trace:\n[c00000007a3ef970] [c00000000022d784] guilty+0x194/0x5f0 (unreliable)\n", "kernel page fault in guilty"},
		{"s390", head + "Krnl PSW : 0704c00180000000 000003ff8014b0d0 (guilty+0x1/0x2 [mod])\n", "kernel page fault in guilty"},
		{"RISC-V", head + "epc : guilty+0x1/0x2\n ra : caller+0x1/0x2\n", "kernel page fault in guilty"},
		{"userspace is no place", head + "RIP: 0033:0x45d5f9\nCall Trace:\n guilty+0x1/0x2\n", "kernel page fault in guilty"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := completeIncident(t, tt.log).Title; got != tt.want {
				t.Errorf("%q, want %q", got, tt.want)
			}
		})
	}
}

// A process chooses its name, and the kernel prints it at the beginning of a line, at facility 0.
func TestNoTaskCanNameACrash(t *testing.T) {
	const (
		segfault = "[1234]: segfault at 0 ip 0000000000401000 sp 00007ffc0 error 4 in y[400000+1000]"
		oom      = " invoked oom-killer: gfp_mask=0xcc0(GFP_KERNEL), order=0, oom_score_adj=0"
		order    = ": page allocation failure: order:4, mode:0xcc0(GFP_KERNEL), nodemask=(null)"
		head     = "BUG: kernel NULL pointer dereference, address: 0000000000000008\n"
		rest     = "RIP: 0010:guilty+0x1/0x2\nCall Trace:\n guilty_caller+0x1/0x2\n"
		lockdep  = "WARNING: possible recursive locking detected\n"
		locked   = " (&x->lock){+.+.}-{3:3}, at: guilty+0x1/0x2\n"
	)
	for _, name := range []string{
		"IP: a+0x1/0x2", "IP: a+0x1/0x2 ", "RIP: 0010:0x0", "RIP: 0010:0x0 ", "pc : a+0x1/0x2 ", "EIP: a+0x1/0x2", "NIP [] a+0x1/2",
		" a+0x1/0x2", " a+0x1/0x2 ", " a+0x1/0x2 (P)", "[<0>] a+0x1/0x2", " a from b+0x1/2", "a, at: b+0x1", "){.}, at: b+0x1", "(){.}, at: b+0x", "culprit: x cpu=",
		"CPU: 1 PID: 1 C", "---[ end trace", "PC is at a+0x1/",
	} {
		for _, says := range []string{segfault, oom, order} {
			if len(name) > maxComm {
				t.Fatalf("%q is too long for a name", name)
			}
			inc := completeIncident(t, head+name+says+"\n"+rest)
			if want := "kernel NULL pointer dereference in guilty"; inc.Title != want || inc.Culprit.Comm != "" {
				t.Errorf("a task called %q made it %q (%+v), want %q", name, inc.Title, inc.Culprit, want)
			}
			if says == order {
				continue // which is a finding of its own
			}
			inc = completeIncident(t, lockdep+name+says+"\n"+locked)
			if want := "possible recursive locking detected in guilty"; inc.Title != want {
				t.Errorf("a task called %q made it %q, want %q", name, inc.Title, want)
			}
			all := completed(rest + name + says + "\nKernel panic - not syncing: Fatal exception\n")
			if want := "dying KernelPanic: oops in guilty"; len(all) == 0 || all[len(all)-1] != want && strings.HasPrefix(all[len(all)-1], "dying KernelPanic: oops") {
				t.Errorf("a task called %q made it %q, want %q", name, all, want)
			}
		}
	}
}
